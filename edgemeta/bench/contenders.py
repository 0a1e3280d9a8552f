"""The same work in edgemeta and in PyTorch, each in a process of its own, done and timed on request.

    python -m edgemeta.bench.contenders edgemeta|torch

A line on standard input is a JSON object {"work": Work's fields, "times": n}; the answer is a line with how long each
of the n times took. What is compared is what a user would write: the same network, data, loss and update.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

BEGAN = time.perf_counter()  # before either library is imported
RATE = 0.01


class Work(NamedTuple):
    """kind: "step" (loss, gradient, update), "natural" (the same, as the README has it), "fomaml" (one inner step and
    the outer one), or "forward".
    """

    kind: str
    model: str
    batch: int
    threads: int = 1
    channels_last: bool = False  # of PyTorch's tensors; ours always are


def by_edgemeta(work: Work) -> Callable[[], object]:
    """Return a function that does the work once."""
    import numpy as np

    from edgemeta.nn import Workspace, build

    network = build(work.model, (32, 32, 3), 10, threads=work.threads)
    rng, workspace = np.random.default_rng(0), Workspace()
    x = rng.standard_normal((2, work.batch, 32, 32, 3), np.float32)
    y = rng.integers(0, 10, (2, work.batch))
    theta = network.init(0)
    adapted = gradient = np.empty_like(theta) if work.kind == "fomaml" else theta

    def forward() -> object:
        return network.forward(theta, x[0], workspace)

    def step() -> None:
        network.descend(theta, x[0], y[0], RATE, workspace, out=theta)

    def natural() -> None:
        nonlocal theta, gradient  # as a script's loop: the last gradient lives until the next one is there
        _, gradient = network.loss_and_grad(theta, x[0], y[0])
        theta -= RATE * gradient

    def fomaml() -> None:
        network.descend(theta, x[0], y[0], RATE, workspace, out=adapted)
        network.descend(adapted, x[1], y[1], RATE, workspace, start=theta, out=theta)

    return {"forward": forward, "step": step, "natural": natural, "fomaml": fomaml}[work.kind]


def by_torch(work: Work) -> Callable[[], object]:
    """Return a function that does the work once."""
    import torch
    from torch import nn
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    kernel, first, second, dense = {"cnn": (5, 32, 64, 512), "cnn-small": (3, 16, 32, 128)}[work.model]
    net = nn.Sequential(
        *(nn.Conv2d(3, first, kernel, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, kernel, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * second, dense), nn.ReLU(), nn.Linear(dense, 10)),
    )
    x, y = torch.randn(2, work.batch, 3, 32, 32), torch.randint(0, 10, (2, work.batch))
    support, query = x[0], x[1]
    if work.channels_last:
        net = net.to(memory_format=torch.channels_last)
        support = support.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    names = [name for name, _ in net.named_parameters()]

    def forward() -> object:
        with torch.inference_mode():
            return net(support)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(support), y[0]).backward()
        optimizer.step()

    def fomaml() -> None:
        parameters = list(net.parameters())
        inner = torch.autograd.grad(cross_entropy(net(support), y[0]), parameters)
        with torch.no_grad():
            adapted = [torch.sub(p, g, alpha=RATE).requires_grad_() for p, g in zip(parameters, inner, strict=True)]
        outputs = functional_call(net, dict(zip(names, adapted, strict=True)), (query,))
        outer = torch.autograd.grad(cross_entropy(outputs, y[1]), adapted)
        with torch.no_grad():
            for p, g in zip(parameters, outer, strict=True):
                p.sub_(g, alpha=RATE)

    return {"forward": forward, "step": step, "natural": step, "fomaml": fomaml}[work.kind]


LIBRARIES = {"edgemeta": by_edgemeta, "torch": by_torch}


def serve(library: str) -> None:
    """Answer requests until standard input ends, with facts about this process in every answer."""
    done: dict[Work, Callable[[], object]] = {}
    first_s = 0.0
    for line in sys.stdin:
        request = json.loads(line)
        work = Work(**request["work"])
        if work not in done:
            done[work] = LIBRARIES[library](work)
            done[work]()
            first_s = first_s or time.perf_counter() - BEGAN
        answer = _timed(done[work], request["times"])
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer | {"first_s": first_s, "peak_mb": peak_mb}), flush=True)


def _timed(function: Callable[[], object], times: int) -> dict[str, Any]:
    """Return how long each call took: on the wall's clock, and in processor time, which other programs disturb less."""
    wall, cpu = [], []
    for _ in range(times):
        starts = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - starts[0])
        cpu.append(time.process_time() - starts[1])
    return {"wall_s": wall, "cpu_s": cpu}


if __name__ == "__main__":
    serve(sys.argv[1])
