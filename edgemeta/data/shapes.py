"""The synthetic set's classes: shapes as functions of a point, positive inside, by the distance from the edge.

u points to the right and v down, and a shape's radius is about 1; positive values are (nearly) distances to the
edge in these units, so that clipping them at the size of a pixel draws a smooth edge.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _box(u: Array, v: Array, width: float, height: float) -> Array:
    return np.minimum(width - np.abs(u), height - np.abs(v))


def _disc(u: Array, v: Array, radius: float = 0.85) -> Array:
    return radius - np.hypot(u, v)


def _ring(u: Array, v: Array) -> Array:
    return 0.2 - np.abs(np.hypot(u, v) - 0.7)


def _square(u: Array, v: Array) -> Array:
    return _box(u, v, 0.75, 0.75)


def _frame(u: Array, v: Array) -> Array:
    return 0.17 - np.abs(_box(u, v, 0.66, 0.66))


def _triangle(u: Array, v: Array) -> Array:
    sides = [math.cos(turn) * u + math.sin(turn) * v for turn in (math.pi / 2, -math.pi / 6, math.pi * 7 / 6)]
    return 0.5 - np.maximum(np.maximum(sides[0], sides[1]), sides[2])


def _cross(u: Array, v: Array) -> Array:
    return np.maximum(_box(u, v, 0.28, 0.9), _box(u, v, 0.9, 0.28))


def _star(u: Array, v: Array) -> Array:
    radius = np.hypot(u, v)
    fifth = 2 * math.pi / 5
    turn = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)  # from the nearest point of the star
    inner_u, inner_v = 0.42 * math.cos(fifth / 2), 0.42 * math.sin(fifth / 2)
    length = math.hypot(1 - inner_u, inner_v)  # of an edge, which runs from (1, 0) to the inner corner
    edge: Array = (inner_v * (1 - radius * np.cos(turn)) - (1 - inner_u) * radius * np.sin(turn)) / length
    return edge


def _crescent(u: Array, v: Array) -> Array:
    return np.minimum(_disc(u, v, 0.9), -_disc(u - 0.45, v, 0.68))


def _stripes(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 0.85, 0.85), 0.17 - np.abs((v + 0.34) % 0.68 - 0.34))


def _checks(u: Array, v: Array) -> Array:
    cells = [np.abs((w + 0.425) % 0.85 - 0.425) - 0.2125 for w in (u - 0.2125, v - 0.2125)]
    same: Array = np.where(cells[0] * cells[1] > 0, 1, -1) * np.minimum(np.abs(cells[0]), np.abs(cells[1]))
    return np.minimum(_box(u, v, 0.85, 0.85), same)


def _heart(u: Array, v: Array) -> Array:
    lobes = _disc(np.abs(u) - 0.4, v + 0.3, 0.48)
    tip = np.minimum((0.8 - 0.74 * np.abs(u) - 0.9 * v) * 0.8, v + 0.3)
    return np.maximum(lobes, np.minimum(tip, 0.88 - np.abs(u)))


def _arrow(u: Array, v: Array) -> Array:
    head = np.minimum((0.75 * (v + 0.95) - np.abs(u)) * 0.8, 0.05 - v)
    return np.maximum(head, _box(u, v - 0.4, 0.22, 0.5))


def _half(u: Array, v: Array) -> Array:
    return np.minimum(_disc(u, v - 0.35, 0.95), 0.35 - v)


def _dots(u: Array, v: Array) -> Array:
    return _disc(np.abs(u) - 0.5, np.abs(v) - 0.5, 0.33)


def _hourglass(u: Array, v: Array) -> Array:
    return np.minimum((np.abs(v) + 0.12 - np.abs(u)) * 0.7, 0.8 - np.abs(v))


def _tee(u: Array, v: Array) -> Array:
    return np.maximum(_box(u, v + 0.6, 0.8, 0.25), _box(u, v, 0.25, 0.85))


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "stripes": _stripes,
    "checks": _checks,
    "heart": _heart,
    "arrow": _arrow,
    "half": _half,
    "dots": _dots,
    "hourglass": _hourglass,
    "tee": _tee,
}
