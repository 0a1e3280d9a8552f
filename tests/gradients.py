"""One gradient checker, for every layer, every loss and whole networks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TOLERANCE = 1e-6
STEP = 1e-7  # short, so that it crosses no kink of a ReLU or a pool; the round-off is of order 1e-16 / STEP


def check_gradient(function: Callable[[Array], float], gradient: Array, point: Array, rng: np.random.Generator) -> None:
    """Hold `gradient` of `function` at `point` against one central difference along a random direction.

    All float64. One projection catches an error in any component, whatever the number of components.
    """
    assert point.dtype == gradient.dtype == np.float64
    assert gradient.shape == point.shape
    direction = rng.standard_normal(point.shape)
    numeric = (function(point + STEP * direction) - function(point - STEP * direction)) / (2 * STEP)
    exact = float(np.sum(gradient * direction))
    assert abs(numeric - exact) <= TOLERANCE * max(abs(numeric), abs(exact)), (numeric, exact)


def tie_free(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return distinct float64 numbers up to 2, no two close and none near 0: no kink lies in a step's reach."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) + 0.5 - size // 2) * (4 / size)).reshape(shape)
