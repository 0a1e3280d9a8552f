"""The built-in data set: small pictures of shapes, drawn when they are read.

Picture i is a function of (seed, training or test, i) alone. Participants see the same world through different
cameras: `for_participant` changes the light, the colours, the wall behind and the angle, as a function of the seed
and the participant's number.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Array, Dataset, Indices, Split, every
from edgemeta.data.shapes import SHAPES
from edgemeta.errors import DataError

LIMITS = {"samples": (10, 10_000_000), "classes": (2, len(SHAPES)), "size": (8, 128), "seed": (0, 2**63 - 1)}
TRAIN, TEST, STYLE = 0, 1, 2  # parts of a seed: changing one changes every picture
BLOCK_PIXELS = 1 << 17  # pixels drawn at a time: some 10 MB of floats
CLUTTER = 2  # small things in the way
PARAMETERS = 17 + 6 * CLUTTER  # uniform numbers that a picture takes


@dataclass(frozen=True)
class Style:
    """A camera and its place: what is the same in all pictures of one participant."""

    turn: float = 0.0  # radians
    cast: NDArray[np.float32] | None = None  # (3, 3): how the colours mix
    gamma: float = 1.0
    contrast: float = 1.0
    wall: tuple[float, float, float] = (0.0, 0.0, 0.0)  # a pattern behind: strength, waves a picture, direction


def synthetic(samples: int = 6000, classes: int = 10, size: int = 32, seed: int = 0) -> Split:
    """Return `samples` training pictures and a fifth as many for testing, (size, size, 3), classes in turn.

    Raises DataError for a number out of its range (LIMITS).
    """
    given = {"samples": samples, "classes": classes, "size": size, "seed": seed}
    for key, (low, high) in LIMITS.items():
        if not low <= given[key] <= high:
            raise DataError(f"synthetic: {key}={given[key]}: expected {low} to {high}")
    if samples < 5 * classes:
        raise DataError(f"synthetic: samples={samples} of {classes} classes: expected {5 * classes} or more")
    names = tuple(SHAPES)[:classes]

    def part(number: int, count: int) -> Dataset:
        def styled(style: Style) -> Any:
            # What is drawn follows from the position: whoever reads may count the classes in another way.
            return lambda positions, labels: (_draw(seed, number, positions, positions % classes, size, style), labels)

        labels = (np.arange(count, dtype=np.int64) % classes).astype(np.int64)
        return Dataset(
            labels, names, (size, size, 3), styled(Style()), every(count), lambda k: styled(style_of(seed, k))
        )

    return Split(part(TRAIN, samples), part(TEST, samples // 5), "synthetic")


def style_of(seed: int, participant: int) -> Style:
    """Return participant k's style."""
    rng = np.random.default_rng([seed, STYLE, participant])
    mixing = np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3))
    cast = mixing / mixing.sum(axis=1, keepdims=True) * rng.uniform(0.7, 1.15, (3, 1))
    return Style(
        turn=rng.uniform(-0.7, 0.7),
        cast=cast.astype(np.float32),
        gamma=math.exp(rng.uniform(-0.5, 0.5)),
        contrast=rng.uniform(0.6, 1.0),
        wall=(rng.uniform(0.05, 0.2), rng.uniform(2, 5), rng.uniform(0, math.pi)),
    )


def _draw(seed: int, part: int, positions: Indices, labels: Indices, size: int, style: Style) -> NDArray[np.uint8]:
    x = np.empty((len(positions), size, size, 3), np.uint8)
    block = max(1, BLOCK_PIXELS // size**2)
    for start in range(0, len(positions), block):
        stop = min(start + block, len(positions))
        numbers = np.empty((stop - start, PARAMETERS), np.float32)
        noise = np.empty((stop - start, size, size, 3), np.float32)
        for row, position in enumerate(positions[start:stop].tolist()):
            rng = np.random.default_rng([seed, part, position])
            rng.random(out=numbers[row], dtype=np.float32)
            rng.standard_normal(out=noise[row], dtype=np.float32)
        x[start:stop] = _pictures(numbers, noise, labels[start:stop], style)
    return x


def _pictures(numbers: Array, noise: Array, labels: Indices, style: Style) -> NDArray[np.uint8]:
    """Return pictures from their random numbers: numbers (B, PARAMETERS) in [0, 1), noise (B, size, size, 3)."""
    n = numbers[:, :, np.newaxis, np.newaxis]
    size = noise.shape[1]
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    down, right = axis[:, np.newaxis], axis  # the picture runs from -1 to 1 both ways
    pixel = 2 / size

    back, fore = _colours(numbers[:, :7])
    slope = (n[:, 7] - 0.5) * right + (n[:, 8] - 0.5) * down  # light falls off to one side
    strength, waves, direction = style.wall
    wall = strength * np.sin(
        math.pi * waves * (math.cos(direction) * right + math.sin(direction) * down) + 2 * math.pi * n[:, 9]
    )
    picture = back[:, np.newaxis, np.newaxis] + (0.3 * slope + wall)[..., np.newaxis]

    radius = 0.5 + 0.25 * n[:, 10]
    place = (n[:, 11:13] * 2 - 1) * (0.95 - radius)[:, np.newaxis]
    turn = style.turn + (n[:, 13] - 0.5) * 0.7
    dx, dy = (right - place[:, 0]) / radius, (down - place[:, 1]) / (radius * (0.85 + 0.3 * n[:, 14]))
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    depth = np.empty(u.shape, np.float32)
    for label, shape in enumerate(SHAPES.values()):
        rows = labels == label
        if rows.any():
            depth[rows] = shape(u[rows], v[rows])
    shade = fore[:, np.newaxis, np.newaxis] + (0.25 * (n[:, 15] - 0.5) * right)[..., np.newaxis]
    picture = _laid(picture, shade, depth * radius / pixel)

    for thing in range(CLUTTER):
        m = n[:, 17 + 6 * thing : 23 + 6 * thing]
        dx, dy = right - (m[:, 0] * 2 - 1), down - (m[:, 1] * 2 - 1)
        turn = math.pi * m[:, 2]
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        stick = np.minimum(0.06 + 0.3 * m[:, 3] - np.abs(along), 0.05 + 0.05 * m[:, 4] - np.abs(across))
        colour = back + (m[:, 5, 0] * 1.2 - 0.1) * (fore - back)  # between the two: no clue to the shape
        picture = _laid(picture, colour[:, np.newaxis, np.newaxis], stick / pixel)

    picture = picture + (0.02 + 0.06 * n[:, 16])[..., np.newaxis] * noise
    if style.cast is not None:
        picture = picture @ style.cast.T
    picture = 0.5 + style.contrast * (np.clip(picture, 0, 1) ** np.float32(style.gamma) - 0.5)
    pixels: NDArray[np.uint8] = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return pixels


def _colours(numbers: Array) -> tuple[Array, Array]:
    """Return background and foreground colours (B, 3), dark on light or light on dark."""
    back, fore = numbers[:, 0:3], numbers[:, 3:6]
    dark, light = 0.05 + 0.4 * back, 0.55 + 0.4 * fore
    swapped = numbers[:, 6:7] < 0.5
    return np.where(swapped, light, dark), np.where(swapped, dark, light)


def _laid(below: Array, colour: Array, depth: Array) -> Array:
    """Return a picture with something laid over it; depth (B, size, size): pixels inside its edge."""
    cover = np.clip(depth + 0.5, 0, 1)[..., np.newaxis]
    return below + cover * (colour - below)  # type: ignore[no-any-return]
