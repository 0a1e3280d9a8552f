"""What this machine makes of a model: time, memory, and how far convolution is from its bare matrix products."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from edgemeta.nn import Conv2d, Model, Workspace, build
from edgemeta.nn.kernels import conv
from edgemeta.nn.kernels.blas import core

REPEATS = 15


def measure(name: str = "cnn", batch: int = 32, threads: int = 1) -> dict[str, Any]:
    """Return times in milliseconds (medians), rates, and memory in MB for one model on pictures of 32x32.

    Raises InputError for an unknown model.
    """
    network = build(name, (32, 32, 3), 10, threads=threads)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch, 32, 32, 3), np.uint8)
    y = rng.integers(0, 10, batch, np.int64)
    theta, workspace = network.init(0), Workspace()

    def step() -> None:
        network.descend(theta, x, y, 1e-4, workspace, out=theta)

    step_s, forward_s = _medians([step, lambda: network.forward(theta, x, workspace)])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    convolution_s, matmul_s = _convolutions(network, batch, rng)
    return {
        "model": name,
        "parameters": network.layout.size,
        "batch": batch,
        "threads": threads,
        "step_ms": round(1000 * step_s, 3),
        "images_per_s": round(batch / step_s, 1),
        "forward_ms": round(1000 * forward_s, 3),
        "convolution_over_matmul": round(convolution_s / matmul_s, 3) if matmul_s else None,
        "peak_mb": round(peak_mb, 1),
        "startup_ms": _startup_ms(["-c", "import edgemeta.nn"]),
        "help_ms": _startup_ms(["-m", "edgemeta", "--help"]),
        "numpy": np.__version__,
        "blas": blas(),
    }


def _convolutions(network: Model, batch: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the seconds of the plain convolutions, forward and backward, and of the same products by `np.matmul`.

    Of as many samples as the network works on at once.
    """
    batch = min(batch, network.chunk)
    convolution_s = matmul_s = 0.0
    shape: tuple[int, ...] = network.input_shape
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Conv2d):
            height, width, channels = shape
            x = rng.standard_normal((batch, height, width, channels), np.float32)
            weight = rng.standard_normal((layer.kernel, layer.kernel, channels, layer.filters), np.float32)
            dy = rng.standard_normal((batch, height, width, layer.filters), np.float32)
            took = _medians([_convolution(x, weight, dy, i > 0), _products(x, weight, dy, i > 0)])
            convolution_s, matmul_s = convolution_s + took[0], matmul_s + took[1]
        shape, _ = layer.shapes(shape)
    return convolution_s, matmul_s


def _convolution(x: Any, weight: Any, dy: Any, need_dx: bool) -> Callable[[], None]:
    """Return the plain convolution, forward and backward."""
    space, grads = Workspace(), {"weight": np.empty_like(weight)}
    kernel = conv.kernel(weight.shape)
    prepared = kernel.prepare(x, space.part("scratch"), space.part("kept"))
    _, backward = prepared.prepare_backward(dy, need_dx)

    def run() -> None:
        params = kernel.to_working({"weight": weight}, need_dx, space)
        prepared.forward(params)
        backward(params, grads)

    return run


def _products(x: Any, weight: Any, dy: Any, need_dx: bool) -> Callable[[], None]:
    """Return the matrix products of a direct convolution's forward and backward pass, a picture at a time."""
    pixels, filters = x.shape[1] * x.shape[2], dy.shape[3]
    flat = weight.reshape(-1, filters)
    columns = np.ones((pixels, len(flat)), np.float32)
    back = np.ones((filters * len(flat) // x.shape[3], x.shape[3]), np.float32)
    wide, dy_rows = np.ones((pixels, len(back)), np.float32), dy.reshape(len(x), pixels, filters)

    def run() -> None:
        for rows in dy_rows:
            columns @ flat
            columns.T @ rows
            if need_dx:
                wide @ back

    return run


def _medians(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Return each function's median seconds; they take turns, so that a noisy moment hits all of them."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def _startup_ms(arguments: Sequence[str]) -> float:
    def start() -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return round(1000 * min(_medians([start]), default=0.0), 1)


def blas() -> str:
    """Return the name and version of NumPy's BLAS, and the processor that its code is for."""
    build_facts: Any = np.show_config(mode="dicts") if np.lib.NumpyVersion(np.__version__) >= "1.25.0" else {}
    blas = (build_facts or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')} ({core()})"
