"""The fast training step as a whole: right, the same for any number of threads, and no more work than it needs."""

import os
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from gradients import Array
from passes import run

from edgemeta.errors import InputError
from edgemeta.nn import (
    PICTURES,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    MaxPool2d,
    Model,
    ReLU,
    Workspace,
    build,
    layers,
    plan,
    subtract_scaled,
)
from edgemeta.nn.kernels import conv, tiled
from edgemeta.nn.kernels.workspace import PLANS
from edgemeta.nn.plan import CHUNK_SAMPLES

pytestmark = pytest.mark.board

SMOOTH: list[Layer] = [Conv2d(6, 5), Conv2d(7, 3), Conv2d(5, 1), Flatten(), Dense(8), Dense(4)]  # no kink anywhere
USERS: list[Layer] = [
    Conv2d(5, 3),
    ReLU(),
    ReLU(),
    MaxPool2d(2),
    Conv2d(9, 5),
    MaxPool2d(3),
    Conv2d(6, 3),
    Flatten(),
    Dense(3),
]


def batch(size: int, shape: tuple[int, ...], classes: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, *shape), np.float32), rng.integers(0, classes, size)


@pytest.mark.parametrize("size", [1, CHUNK_SAMPLES + 3])
def test_without_kinks_float32_agrees_with_float64(size: int) -> None:
    """Within 2e-5 of the gradient's length; the plain convolutions take the float64 side."""
    model = Model(SMOOTH, (13, 18, 2))
    theta, (x, y) = model.init(1), batch(size, (13, 18, 2), 4)
    loss, gradient = model.loss_and_grad(theta, x, y)
    exact_loss, exact = model.loss_and_grad(theta.astype(np.float64), x.astype(np.float64), y)
    assert loss == pytest.approx(exact_loss, rel=1e-5)
    for name, part in model.layout.views(gradient).items():
        expected = model.layout.views(exact)[name]
        assert np.linalg.norm(part - expected) <= 2e-5 * np.linalg.norm(expected), name


def test_a_projection_of_the_float32_gradient_is_a_central_difference() -> None:
    """Within 1e-4: the difference quotient is float64's, the gradient the fast path's, summed over three chunks."""
    model = Model(SMOOTH, (13, 18, 2))
    theta, (x, y) = model.init(2), batch(2 * model.chunk + 7, (13, 18, 2), 4)
    wide, step = theta.astype(np.float64), 1e-6
    direction = np.random.default_rng(3).standard_normal(theta.size)

    def loss(theta: Array) -> float:
        return model.loss_and_grad(theta, x.astype(np.float64), y)[0]

    numeric = (loss(wide + step * direction) - loss(wide - step * direction)) / (2 * step)
    assert float(model.loss_and_grad(theta, x, y)[1] @ direction) == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize("name", ["cnn", "cnn-small", "conv4"])
def test_the_named_networks_agree_but_for_flipped_kinks(name: str) -> None:
    """Within 2e-2: where two values of a pool are equal to six digits, rounding decides which gets the gradient."""
    model = build(name, (32, 32, 3), 10)
    theta, (x, y) = model.init(0), batch(3, (32, 32, 3), 10)
    _, gradient = model.loss_and_grad(theta, x, y)
    _, exact = model.loss_and_grad(theta.astype(np.float64), x.astype(np.float64), y)
    assert np.linalg.norm(gradient - exact) <= 2e-2 * np.linalg.norm(exact)


def test_training_on_the_fast_and_on_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("cnn-small", (12, 12, 3), 3, normalization=PICTURES)
    x, y = batch(24, (12, 12, 3), 3)

    def losses() -> list[float]:
        theta, curve = model.init(0), []
        for _ in range(12):
            loss, gradient = model.loss_and_grad(theta, x, y)
            subtract_scaled(theta, gradient, 0.05)
            curve.append(loss)
        return curve

    fast = losses()
    monkeypatch.setattr(layers, "tiled", conv)
    model.release()  # what it has prepared
    plain = losses()
    assert fast != plain  # two paths indeed
    assert fast == pytest.approx(plain, rel=1e-3)
    assert fast[-1] < 0.7 * fast[0]


@pytest.mark.parametrize("shape", [(9, 14, 2), (16, 16, 3)])
def test_the_outputs_are_those_of_the_layers_one_by_one(shape: tuple[int, ...]) -> None:
    """To the bit, although the network takes pools first."""
    model = Model(USERS, shape)
    theta, (x, _) = model.init(4), batch(5, shape, 3)
    rng = np.random.default_rng(5)
    theta += rng.standard_normal(theta.size, np.float32) / 10  # biases too
    views, h, convs = model.layout.views(theta), x, 0
    for layer in model.layers:
        params: dict[str, Array] = {}
        if isinstance(layer, Conv2d | Dense):
            convs += isinstance(layer, Conv2d)
            prefix = f"conv{convs}" if isinstance(layer, Conv2d) else "dense1"
            params = {tensor: views[f"{prefix}.{tensor}"] for tensor in ("weight", "bias")}
        h = run(layer, params, h, np.zeros((len(h), *layer.shapes(h.shape[1:])[0]), h.dtype))[0]
    assert model.forward(theta, x).tobytes() == h.tobytes()


@pytest.mark.parametrize("size", [1, CHUNK_SAMPLES, 2 * CHUNK_SAMPLES + 5])
def test_any_number_of_threads_gives_the_same_bits(size: int) -> None:
    for model in (Model(USERS, (9, 14, 2)), build("cnn-small", (16, 16, 3), 3), build("mlp", (40,), 3)):
        theta, (x, y) = model.init(6), batch(size, model.input_shape, 3)
        bits, workspace = set(), Workspace()
        for threads in (1, 2, 3, 1, 2):
            model.threads = threads
            loss, gradient = model.loss_and_grad(theta, x, y, workspace)
            bits.add((loss, gradient.tobytes(), model.forward(theta, x, workspace).tobytes()))
        assert len(bits) == 1


def test_a_chunk_is_what_stays_near_the_processor() -> None:
    assert build("cnn", (32, 32, 3), 10).chunk == 8  # 32 x 32 x 32 numbers a sample, and room for 2**18
    assert build("cnn-small", (32, 32, 3), 10).chunk == 16
    assert build("cnn", (512, 512, 3), 10).chunk == 1
    assert build("cnn-small", (8, 8, 1), 10).chunk == 32


def poison(space: Workspace) -> None:
    for buffer in space._buffers.values():
        buffer.fill(np.nan if buffer.dtype.kind == "f" else True)
    for part in space._parts.values():
        poison(part)


def test_nothing_is_read_that_an_earlier_step_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK_SAMPLES", 2)
    for model in (Model(USERS, (9, 14, 2)), Model(SMOOTH, (13, 18, 2)), build("mlp", (4, 4, 1), 3)):
        theta, workspace = model.init(9), Workspace()
        for size in (5, 1, 4, 5):
            x, y = batch(size, model.input_shape, 3, size)
            poison(workspace)
            got = model.loss_and_grad(theta, x, y, workspace)[1].tobytes()
            assert got == model.loss_and_grad(theta, x, y, Workspace())[1].tobytes()
            poison(workspace)
            assert model.forward(theta, x, workspace).tobytes() == model.forward(theta, x, Workspace()).tobytes()


@pytest.mark.counted
def test_a_network_that_begins_without_weights_computes_no_gradient_of_its_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, matmul = 0, np.matmul

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return matmul(*args, **kwargs)

    monkeypatch.setattr(np, "matmul", counted)
    model, (x, y) = build("mlp", (4, 4, 1), 3), batch(5, (4, 4, 1), 3)
    model.loss_and_grad(model.init(0), x, y)
    assert calls == 3 * 3 - 1  # three layers: forward, for the weights, for the inputs; but not for the network's


def test_threads_keep_to_the_callers_floating_point_settings() -> None:
    model = build("cnn-small", (8, 8, 1), 3, threads=2)
    x, y = batch(2 * model.chunk, (8, 8, 1), 3)
    heard = []
    # A warning would be an error here, and so would be a call where no function is known.
    with np.errstate(over="call", invalid="ignore", call=lambda kind, _: heard.append(kind)):
        loss, _ = model.loss_and_grad(model.init(0) * np.float32(1e30), x, y)
    assert not np.isfinite(loss)
    assert set(heard) == {"overflow"}


def test_an_error_on_a_thread_is_the_callers() -> None:
    workspace = Workspace()
    workspace.threads = 3
    done = []

    def work(piece: int) -> None:
        if piece == 1:
            raise InputError("no")
        done.append(piece)

    with pytest.raises(InputError, match="no"):
        workspace.each(work, 6)
    assert 5 in done  # the other threads finished before the error came out
    for threads in (0, -1, 1000):
        with pytest.raises(InputError, match="threads"):
            Model(SMOOTH, (8, 8, 1), threads=threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_after_a_fork() -> None:
    model = build("cnn-small", (8, 8, 1), 2)
    model.threads = 2
    theta, (x, y) = model.init(0), batch(2 * model.chunk, (8, 8, 1), 2)
    expected = model.loss_and_grad(theta, x, y)[1].tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads around: what is tested
        child = os.fork()
    if not child:
        os._exit(model.loss_and_grad(theta, x, y)[1].tobytes() != expected)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("size", [1, 7, (1 << 16) + 5, 3 << 16])
def test_the_update_is_the_plain_one(size: int) -> None:
    rng = np.random.default_rng(7)
    vector, direction = rng.standard_normal(size, np.float32), rng.standard_normal(size, np.float32)
    expected = vector - np.float32(0.03) * direction
    subtract_scaled(vector, direction, 0.03)
    assert vector.tobytes() == expected.tobytes()


def peak_kb(model: Model, size: int) -> float:
    """Return how much memory a step takes beyond what the steps before it left in the workspace."""
    theta, (x, y), workspace = model.init(0), batch(size, model.input_shape, 10), Workspace()
    gradient = np.empty_like(theta)
    for _ in range(2):
        model.loss_and_grad(theta, x, y, workspace, gradient)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        model.loss_and_grad(theta, x, y, workspace, gradient)
        return (tracemalloc.get_traced_memory()[1] - before) / 1024
    finally:
        tracemalloc.stop()


@pytest.mark.counted
def test_a_step_allocates_next_to_nothing() -> None:
    """What NumPy takes to convert masks, and nothing that grows: the first activations would be 128 kB a sample."""
    model = build("cnn", (32, 32, 3), 10)
    small, large = peak_kb(model, 4 * model.chunk), peak_kb(model, 12 * model.chunk)
    assert small < 100
    assert (large - small) / (8 * model.chunk) < 0.5


@pytest.mark.counted
def test_a_step_makes_no_more_products_than_it_needs_and_no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the modules say, with 4 bands of tiles in a chunk; a second step finds every view made."""
    calls = {"matmul": 0, "as_strided": 0}

    def counted(name: str, function: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    model, workspace = build("cnn", (32, 32, 3), 10), Workspace()
    theta, (x, y) = model.init(0), batch(2 * model.chunk, (32, 32, 3), 10)
    for module in (conv, tiled):
        monkeypatch.setattr(module, "as_strided", counted("as_strided", module.as_strided))
    monkeypatch.setattr(np, "matmul", counted("matmul", np.matmul))
    model.loss_and_grad(theta, x, y, workspace)
    assert calls["as_strided"] > 0
    calls.update(matmul=0, as_strided=0)
    model.loss_and_grad(theta, x, y, workspace)
    plain, tiles, biases = 1 + 1, (1 + 4 * 3 + 1) + (1 + 4 * 4 + 1), 2  # of each chunk
    weights = 2 + 2  # to the working form of the tiles, and back
    dense = (4096 // 1024 + 2 * 4096 // 512) + (1 + 2)
    assert calls == {"matmul": 2 * (plain + tiles + biases) + weights + dense, "as_strided": 0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, CHUNK_SAMPLES + 3])
def test_a_descent_is_the_gradient_and_a_subtraction_to_the_bit(size: int, dtype: type) -> None:
    for model in (Model(USERS, (9, 14, 2)), build("cnn-small", (16, 16, 3), 3), Model([Dense(600), Dense(3)], (1030,))):
        theta, (x, y) = model.init(8).astype(dtype), batch(size, model.input_shape, 3)
        start, workspace = theta + 1, Workspace()
        loss, gradient = model.loss_and_grad(theta, x, y)
        step = dtype(0.03) * gradient
        got_loss, got = model.descend(theta, x, y, 0.03, workspace)
        assert got_loss == loss
        assert got.tobytes() == (theta - step).tobytes()
        before = theta.copy()
        assert model.descend(theta, x, y, 0.03, workspace, start=start, out=start)[1] is start
        assert start.tobytes() == (before + 1 - step).tobytes()
        assert theta.tobytes() == before.tobytes()
        assert model.descend(theta, x, y, 0.03, workspace, out=theta)[1] is theta
        assert theta.tobytes() == (before - step).tobytes()


@pytest.mark.counted
def test_a_descent_has_no_gradient_of_the_networks_size() -> None:
    model = Model([Dense(500), Dense(3)], (6000,))  # 12 MB
    theta, (x, y) = model.init(0), batch(4, model.input_shape, 3)
    tracemalloc.start()
    try:
        model.descend(theta, x, y, 0.1, out=theta)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < theta.nbytes / 4


def test_a_plan_is_made_once_for_a_batch_size_and_anew_when_memory_has_moved() -> None:
    workspace, made = Workspace(), []

    def make(size: int) -> Array:
        made.append(size)
        return workspace.array("x", (size,), np.float32)

    small = workspace.plan("small", lambda: make(4))
    assert workspace.plan("small", lambda: make(4)) is small
    large = workspace.plan("large", lambda: make(8))  # moves the buffer: made again, now that it fits
    assert made == [4, 8, 8]
    again = workspace.plan("small", lambda: make(4))  # which must not lie in the memory that was left
    assert np.shares_memory(again, large)
    for i in range(20):
        workspace.plan(i, lambda: make(1))
    assert len(workspace._plans) == PLANS
