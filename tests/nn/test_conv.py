"""The convolution: by hand, and against an independent one of nested loops."""

import itertools

import numpy as np
import pytest
from gradients import Array, check_gradient
from passes import convolved

from edgemeta.nn.kernels import conv

pytestmark = pytest.mark.board


def naive(x: Array, weight: Array) -> Array:
    """The definition, one product at a time: no padding, no matrix."""
    (batch, height, width, channels), (kh, kw, _, filters) = x.shape, weight.shape
    y = np.zeros((batch, height, width, filters))
    for b, i, j, o in itertools.product(*map(range, y.shape)):
        for u, v, c in itertools.product(range(kh), range(kw), range(channels)):
            row, column = i + u - kh // 2, j + v - kw // 2
            if 0 <= row < height and 0 <= column < width:
                y[b, i, j, o] += x[b, row, column, c] * weight[u, v, c, o]
    return y


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (3, 5)])
@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (3, 5, 7, 2), (2, 1, 3, 4)])
def test_it_is_the_definition(kernel: tuple[int, int], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.standard_normal(size) for size in (shape, (*kernel, shape[3], 3), (*shape[:3], 3)))
    y, dweight, dx = convolved(conv, [x, weight, dy])
    np.testing.assert_allclose(y, naive(x, weight), rtol=1e-12, atol=1e-12)
    check_gradient(lambda w: float(np.sum(naive(x, w) * dy)), dweight, weight, rng)
    check_gradient(lambda x: float(np.sum(naive(x, weight) * dy)), dx, x, rng)


def test_by_hand() -> None:
    x = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    weight = np.zeros((3, 3, 1, 1))
    weight[0, 1], weight[1, 2] = 1, 10  # the pixel above, and ten times the one to the right
    y, dweight, dx = convolved(conv, [x, weight, np.ones((1, 3, 3, 1))])
    assert y.reshape(3, 3).tolist() == [[20, 30, 0], [51, 62, 3], [84, 95, 6]]
    # For each tap the sum of the pixels that it saw: rows 1-2 (or 2-3, or all) times columns 1-2 (or 2-3, or all).
    assert dweight.reshape(3, 3).tolist() == [[12, 21, 16], [27, 45, 33], [24, 39, 28]]
    # A pixel fed the one below it (not in the last row) once, and the one to its left (not in column 1) ten times.
    assert dx.reshape(3, 3).tolist() == [[1, 11, 11], [1, 11, 11], [0, 10, 10]]
