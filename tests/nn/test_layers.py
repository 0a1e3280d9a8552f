"""Every layer: by hand, and held against projected central differences."""

import numpy as np
import pytest
from gradients import Array, check_gradient, tie_free
from passes import run

from edgemeta.errors import InputError
from edgemeta.nn import Conv2d, Dense, Flatten, Layer, MaxPool2d, ReLU, Workspace
from edgemeta.nn.kernels import dense

pytestmark = pytest.mark.board

CASES: list[tuple[Layer, tuple[int, ...]]] = [
    (Conv2d(4, 1), (3, 5, 6, 2)),
    (Conv2d(4, 3), (3, 5, 6, 2)),
    (Conv2d(3, 3), (1, 7, 4, 1)),
    (Conv2d(2, 5), (2, 7, 5, 3)),
    (Conv2d(2, 5), (1, 2, 3, 2)),  # the kernel is larger than the picture
    (MaxPool2d(2), (3, 6, 4, 2)),
    (MaxPool2d(2), (2, 7, 5, 3)),  # a row and a column are left over
    (MaxPool2d(3), (1, 8, 7, 2)),
    (MaxPool2d(1), (2, 3, 3, 1)),
    (ReLU(), (3, 4, 5, 2)),
    (ReLU(), (1, 7)),
    (Flatten(), (2, 3, 4, 2)),
    (Dense(4), (5, 7)),
    (Dense(1), (1, 3)),
]


def draw(layer: Layer, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[dict[str, Array], Array, Array]:
    """Return parameters, an input and a gradient of the output, all float64 and tie-free."""
    out, tensors = layer.shapes(shape[1:])
    params = {name: tie_free(rng, size) for name, size in tensors.items()}
    return params, tie_free(rng, shape), rng.standard_normal((shape[0], *out))


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_gradients_are_those_of_central_differences(layer: Layer, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    params, x, dy = draw(layer, shape, rng)
    y, dx, grads = run(layer, params, x, dy)
    assert y.shape == dy.shape
    assert dx is not None

    def projected(params: dict[str, Array], x: Array) -> float:
        return float(np.sum(run(layer, params, x, dy)[0] * dy))

    check_gradient(lambda x: projected(params, x), dx, x, rng)
    for name in params:
        check_gradient(lambda p, name=name: projected(params | {name: p}, x), grads[name], params[name], rng)  # type: ignore[misc]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_float32_is_the_same_computation(layer: Layer, shape: tuple[int, ...]) -> None:
    params, x, dy = draw(layer, shape, np.random.default_rng(2))
    wide = run(layer, params, x, dy)
    narrow = run(
        layer, {name: p.astype(np.float32) for name, p in params.items()}, x.astype(np.float32), dy.astype(np.float32)
    )
    for a, b in [*zip(wide[:2], narrow[:2], strict=True), *((wide[2][name], narrow[2][name]) for name in params)]:
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * max(1, float(np.abs(a).max())))


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_a_used_workspace_changes_nothing(layer: Layer, shape: tuple[int, ...]) -> None:
    scratch, rng = Workspace(), np.random.default_rng(3)
    for batch in (4, 1, 7, 2, 4):
        params, x, dy = draw(layer, (batch, *shape[1:]), rng)
        used, fresh = run(layer, params, x, dy, scratch), run(layer, params, x, dy)
        for a, b in [*zip(used[:2], fresh[:2], strict=True), *((used[2][name], fresh[2][name]) for name in params)]:
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_a_layer_only_reads_what_it_is_given(layer: Layer, shape: tuple[int, ...]) -> None:
    params, x, dy = draw(layer, shape, np.random.default_rng(4))
    for array in (x, dy, *params.values()):
        array.flags.writeable = False  # a write raises
    run(layer, params, x, dy)


@pytest.mark.parametrize("layer", [Conv2d(3, 3), Dense(3)], ids=str)
def test_the_first_layer_is_spared_the_inputs_gradient(layer: Layer) -> None:
    params, x, dy = draw(layer, (2, 4, 4, 1) if isinstance(layer, Conv2d) else (2, 4), np.random.default_rng(5))
    _, _, with_dx = run(layer, params, x, dy)
    _, dx, without = run(layer, params, x, dy, need_dx=False)
    assert dx is None
    assert all(without[name].tobytes() == with_dx[name].tobytes() for name in params)


def test_dense_by_hand() -> None:
    weight = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    params = {"weight": weight, "bias": np.array([0.5, -1.0, 0.0])}
    y, dx, grads = run(Dense(3), params, np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, -1.0]]))
    assert y.tolist() == [[9.5, 11.0, 15.0]]  # 1+8+.5, 2+10-1, 3+12
    assert dx.tolist() == [[-2.0, -2.0]]  # 1-3, 4-6
    assert grads["weight"].tolist() == [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0]]  # x down, dy across
    assert grads["bias"].tolist() == [1.0, 0.0, -1.0]


def test_dense_sums_its_gradients_over_the_batch() -> None:
    params = {"weight": np.array([[3.0]]), "bias": np.array([0.0])}
    _, dx, grads = run(Dense(1), params, np.array([[1.0], [2.0]]), np.array([[10.0], [100.0]]))
    assert (grads["weight"].tolist(), grads["bias"].tolist()) == ([[210.0]], [110.0])  # 1*10 + 2*100
    assert dx.tolist() == [[30.0], [300.0]]


@pytest.mark.parametrize("small", [0, 1, 64 * 3 * 5, 128 * 3 * 5, 10**9])
@pytest.mark.parametrize("inputs", [7, 1024, 2500])
def test_dense_in_pieces_is_the_product(inputs: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if OpenBLAS did products without packing up to this size: rows of weights one by one, 64, 128, all."""
    monkeypatch.setattr(dense, "small_product", lambda: small)
    rng = np.random.default_rng(6)
    params = {"weight": rng.standard_normal((inputs, 5)), "bias": rng.standard_normal(5)}
    x, dy = rng.standard_normal((3, inputs)), rng.standard_normal((3, 5))
    y, dx, grads = run(Dense(5), params, x, dy)
    for got, expected in [
        (y, x @ params["weight"] + params["bias"]),
        (dx, dy @ params["weight"].T),
        (grads["weight"], x.T @ dy),
        (grads["bias"], dy.sum(axis=0)),
    ]:
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_relu_by_hand() -> None:
    x, dy = np.array([[-2.0, 0.0, 3.0]]), np.array([[5.0, 6.0, 7.0]])
    y, dx, _ = run(ReLU(), {}, x, dy)
    assert (y.tolist(), dx.tolist()) == ([[0.0, 0.0, 3.0]], [[0.0, 0.0, 7.0]])


def test_max_pool_by_hand() -> None:
    x = np.array([[1, 5, 2, 9], [3, 4, 8, 9], [7, 7, 6, 9]], np.float64).reshape(1, 3, 4, 1)
    y, dx, _ = run(MaxPool2d(2), {}, x, np.array([10.0, 20.0]).reshape(1, 1, 2, 1))
    assert y.ravel().tolist() == [5.0, 9.0]
    # Of the two nines the first in reading order takes the gradient; the third row lies outside every tile.
    assert dx.reshape(3, 4).tolist() == [[0, 10, 0, 20], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_max_pool_gives_the_gradient_of_a_tie_once() -> None:
    x = np.zeros((1, 2, 2, 1))  # as behind a ReLU, where whole tiles are 0
    _, dx, _ = run(MaxPool2d(2), {}, x, np.full((1, 1, 1, 1), 3.0))
    assert dx.ravel().tolist() == [3.0, 0.0, 0.0, 0.0]


def test_max_pool_keeps_channels_apart() -> None:
    x = np.array([[[1.0, -4.0], [2.0, -3.0]], [[0.0, -2.0], [1.0, -1.0]]])[np.newaxis]
    y, dx, _ = run(MaxPool2d(2), {}, x, np.array([[[[1.0, 7.0]]]]))
    assert y.ravel().tolist() == [2.0, -1.0]
    assert dx[0, :, :, 0].tolist() == [[0, 1], [0, 0]]
    assert dx[0, :, :, 1].tolist() == [[0, 0], [0, 7]]


def test_flatten_keeps_the_order_height_width_channels() -> None:
    x = np.arange(2 * 2 * 3 * 2, dtype=np.float64).reshape(2, 2, 3, 2)
    y, dx, _ = run(Flatten(), {}, x, np.arange(24, dtype=np.float64).reshape(2, 12))
    assert y[1, (1 * 3 + 2) * 2 + 1] == x[1, 1, 2, 1]
    assert y.ravel().tolist() == list(range(24))
    assert dx.tolist() == x.tolist()


def test_layers_say_what_they_need() -> None:
    for layer, shape, message in [
        (Conv2d(1, 3), (8,), "expected a picture"),
        (MaxPool2d(2), (4, 4), "expected a picture"),
        (MaxPool2d(5), (4, 8, 1), "4x8"),
        (MaxPool2d(0), (4, 8, 1), "a tile of 1"),
        (Dense(3), (4, 8, 1), "Flatten"),
        (Dense(0), (4,), "1 unit or more"),
    ]:
        with pytest.raises(InputError, match=message):
            layer.shapes(shape)
    for filters, kernel in [(0, 3), (4, 2), (4, 0), (4, -1)]:
        with pytest.raises(InputError, match="odd kernel"):
            Conv2d(filters, kernel)
