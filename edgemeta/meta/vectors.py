"""Arithmetic on parameter vectors that makes no second vector: on a small board, one is a tenth of what there is."""

from edgemeta.nn import Vector

BLOCK = 1 << 16  # parameters handled at once, so that the products stay in the cache


def subtract(vector: Vector, factor: float, direction: Vector) -> None:
    """Do vector -= factor * direction, with the same bits, without the product ever being whole."""
    for start in range(0, len(vector), BLOCK):
        block = slice(start, start + BLOCK)
        vector[block] -= factor * direction[block]
