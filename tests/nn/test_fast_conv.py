"""The fast convolutions: their matrices exactly, and the results against the plain convolution in float64.

Tolerance: rounding errors grow with the terms of a sum, not with the sum, and a transform mixes the terms of a whole
tile. So an error is measured against the largest input times the sum of a filter's absolute weights, or its like for
the gradients, with all tiles taken as full.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from passes import convolved

from edgemeta.nn import Conv2d, Workspace
from edgemeta.nn.kernels import conv, tiled
from edgemeta.nn.kernels.cooktoom import POINTS, TILE, exact, transforms

Array = NDArray[Any]
TOLERANCE = 5e-6  # over thousands of random shapes the worst was 1.4e-6


def products(rows: list[list[Fraction]], numbers: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, numbers, strict=True)), Fraction(0)) for row in rows]


def by_transforms(b: Any, g: Any, a: Any, d: list[Fraction], w: list[Fraction]) -> list[Fraction]:
    multiplied = [x * y for x, y in zip(products(g, w), products(b, d), strict=True)]
    return products([list(column) for column in zip(*a, strict=True)], multiplied)


def test_the_example_of_the_docstring_by_hand() -> None:
    b, g, a = exact((0, 1), 2, 2)
    assert len(b) == len(g) == len(a) == 3  # products
    d, w = [Fraction(n) for n in (3, 5, 7)], [Fraction(n) for n in (2, 10)]
    assert by_transforms(b, g, a, d, w) == [3 * 2 + 5 * 10, 5 * 2 + 7 * 10]


@pytest.mark.parametrize(("kernel", "outputs"), [(3, 4), (5, 4), (3, 2), (2, 3), (1, 1)])
def test_the_matrices_are_exact(kernel: int, outputs: int) -> None:
    rng = np.random.default_rng(kernel)
    matrices = exact(POINTS[: kernel + outputs - 2], kernel, outputs)
    for _ in range(5):
        d, w = ([Fraction(int(n)) for n in rng.integers(-9, 10, size)] for size in (kernel + outputs - 1, kernel))
        assert by_transforms(*matrices, d, w) == [sum(w[j] * d[i + j] for j in range(kernel)) for i in range(outputs)]


@pytest.mark.parametrize("kernel", [3, 5])
def test_what_is_applied_most_often_is_exact_in_float32(kernel: int) -> None:
    b, g, a = exact(POINTS[: kernel + TILE - 2], kernel, TILE)
    for rows, matrix in [(b, transforms(kernel).inputs), (a, transforms(kernel).outputs)]:
        assert [[Fraction(float(n)) for n in row] for row in matrix] == rows
    for row in (*b, *g, *a):
        assert 0.1 < max(map(abs, row)) < 10  # balanced


def draw(rng: np.random.Generator, shape: tuple[int, ...], kernel: int, filters: int) -> list[Array]:
    """Return x, weight and dy, in float32."""
    sizes = [shape, (kernel, kernel, shape[3], filters), (*shape[:3], filters)]
    return [rng.standard_normal(size, np.float32) for size in sizes]


def hold(got: list[Array], arrays: list[Array]) -> None:
    """Hold y, dweight and dx against the plain convolution in float64."""
    expected = convolved(conv, [array.astype(np.float64) for array in arrays])
    largest_x, _, largest_dy = (float(np.abs(array).max()) for array in arrays)
    weights = np.abs(arrays[1])
    batch, height, width, _ = arrays[0].shape
    places = batch * (-(-height // TILE)) * (-(-width // TILE)) * TILE**2
    bounds = [
        largest_x * float(weights.sum(axis=(0, 1, 2)).max()),
        largest_x * largest_dy * places,
        largest_dy * float(weights.sum(axis=(0, 1, 3)).max()),
    ]
    for fast, plain, bound in zip(got, expected, bounds, strict=True):
        assert fast.dtype == np.float32
        assert fast.shape == plain.shape
        assert float(np.abs(fast - plain).max()) <= TOLERANCE * bound


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 14), st.integers(1, 14), st.integers(1, 9)),
    kernel=st.sampled_from([3, 5]),
    filters=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_shape(shape: tuple[int, ...], kernel: int, filters: int, seed: int) -> None:
    arrays = draw(np.random.default_rng(seed), shape, kernel, filters)
    hold(convolved(tiled, arrays), arrays)


def test_the_reference_networks_layers() -> None:
    rng = np.random.default_rng(0)
    for shape, kernel, filters in [((16, 16, 16, 32), 5, 64), ((16, 16, 16, 16), 3, 32)]:
        arrays = draw(rng, shape, kernel, filters)
        hold(convolved(tiled, arrays), arrays)


def test_a_used_workspace_changes_nothing() -> None:
    rng, space = np.random.default_rng(1), Workspace()
    for shape, kernel in [((3, 9, 6, 2), 5), ((1, 5, 12, 4), 3), ((5, 13, 4, 1), 5), ((1, 4, 4, 2), 3)]:
        arrays = draw(rng, shape, kernel, 3)
        for buffer in space.part("scratch")._buffers.values():
            buffer.fill(np.nan)  # what an earlier layer left may be anything
        used, fresh = convolved(tiled, arrays, space), convolved(tiled, arrays)
        assert [a.tobytes() for a in used] == [a.tobytes() for a in fresh]


@pytest.mark.parametrize("kernel", [3, 5])
def test_bands_of_any_height_give_the_same_bits(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one place of a tile at a time to all at once; heights that do not divide their number, too."""
    shape, filters = (2, 11, 9, 3), 4
    arrays, size = draw(np.random.default_rng(3), shape, kernel, filters), kernel + TILE - 1
    seen = set()
    in_one = size * 3 * shape[0] * filters * 3  # one place's tiles
    for high in (1, 2, 3, 5, 100):
        monkeypatch.setattr(tiled, "BAND", in_one * high)
        got = convolved(tiled, arrays)
        hold(got, arrays)
        seen.add(tuple(array.tobytes() for array in got))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("layer", "shape", "dtype", "module"),
    [
        (Conv2d(4, 5), (8, 8, 3), np.float32, conv),  # few channels
        (Conv2d(4, 5), (8, 8, 7), np.float32, tiled),
        (Conv2d(4, 3), (4, 9, 11), np.float32, tiled),
        (Conv2d(4, 5), (8, 8, 7), np.float64, conv),
        (Conv2d(4, 7), (8, 8, 7), np.float32, conv),
        (Conv2d(4, 1), (8, 8, 7), np.float32, conv),
        (Conv2d(4, 3), (3, 8, 11), np.float32, conv),  # lower than a tile
    ],
    ids=str,
)
def test_the_layer_chooses_by_shape_and_dtype(layer: Conv2d, shape: tuple[int, ...], dtype: Any, module: Any) -> None:
    kernel = module.kernel((layer.kernel, layer.kernel, shape[2], layer.filters))
    assert layer.computed_by(shape, np.dtype(dtype)).to_working is kernel.to_working
