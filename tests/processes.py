"""Real gateways and devices in processes of their own, for several tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from runs import without_seconds

from edgemeta.bench.loopback import Process, start
from edgemeta.config import config_from, to_toml
from edgemeta.meta.learners import GradientAt, Learner

SPEC = "synthetic:samples=120,size=8"
RUN = """
[model]
name = "mlp"
input_shape = [3]
classes = ["a", "b"]
[data]
participants = 2
[[phases]]
rounds = 2
"""


def _counting(model: Any, vectors: Any, batches: Any, recipe: Any, workspace: Any) -> Any:
    return [], {"theta": GradientAt(vectors["theta"], batches[0]), "count": np.full(1, -1 / recipe.lr, np.float32)}


# A learner that counts its own steps in a vector that never travels.
COUNTING = Learner(_counting, lambda _: 1, lambda _: 1, "none", {"count": lambda _: np.zeros(1, np.float32)})


def write_config(folder: Path, settings: dict[str, Any]) -> Path:
    """Write run.toml into a folder."""
    path = folder / "run.toml"
    path.write_text(to_toml(config_from(settings)))
    return path


def end(*processes: Process) -> None:
    """Kill and reap."""
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def server(folder: Path, *options: object, config: str = RUN) -> Iterator[tuple[Process, int | None]]:
    """Run `edgemeta server` in a folder of its own, and give the process and its port, if it listens without TLS."""
    (folder / "run.toml").write_text(config)
    process = start("server", "--config", "run.toml", "--port", 0, *options, log=folder / "log", cwd=folder)
    try:
        line = process.stdout.readline()
        yield process, int(line.rpartition(":")[2]) if line.startswith("listening on http://") else None
    finally:
        end(process)


def assert_same_run(folder: Path, reference: Path) -> None:
    """Compare two run directories: the model's bits, and the history but for seconds."""
    assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    ours, theirs = (
        without_seconds([json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()])
        for path in (folder, reference)
    )
    assert ours == theirs
    assert (folder / "summary.json").exists()
