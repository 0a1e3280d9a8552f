"""The step of gradient descent, on a flat vector or on a part of one."""

from typing import NamedTuple

import numpy as np

from edgemeta.nn.layout import Vector

BLOCK = 1 << 16  # numbers: one block of rate * gradient stays in a core's cache until it is subtracted


class Descent(NamedTuple):
    """A place for a gradient to go instead of into memory of its own: out = start - rate * gradient.

    start, out: (D, n), which may be the same array.
    """

    start: Vector
    rate: float
    out: Vector

    def step(self, rows: slice, gradient: Vector) -> None:
        """Take the step for some of the rows; overwrites their gradient."""
        np.multiply(gradient, gradient.dtype.type(self.rate), out=gradient)
        np.subtract(self.start[rows], gradient, out=self.out[rows])


def subtract_scaled(vector: Vector, direction: Vector, rate: float) -> None:
    """vector -= rate * direction, in place: the same bits in half the time, and without a second vector in memory."""
    scaled = np.empty(min(BLOCK, vector.size), vector.dtype)
    for start in range(0, vector.size, BLOCK):
        part = vector[start : start + BLOCK]
        part -= np.multiply(direction[start : start + BLOCK], vector.dtype.type(rate), out=scaled[: part.size])
