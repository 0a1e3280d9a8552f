"""Spoiling training data on purpose, to see what a method bears."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import BLOCK, Array, Indices
from edgemeta.errors import DataError


def add_noise(
    x: Array, y: Indices, classes: int, label_noise: float, pixel_noise: float, rng: np.random.Generator
) -> tuple[Array, Indices]:
    """Return new (x, y) with noise.

    label_noise: the share of labels that become another class, drawn uniformly. pixel_noise: the sigma of a normal
    variate added to each value, in the pixel range 0..1; uint8 pixels are clipped to their range, floats are not.
    """
    return _noisy_pixels(x, pixel_noise, rng), _noisy_labels(y, classes, label_noise, rng)


def _noisy_labels(y: Indices, classes: int, share: float, rng: np.random.Generator) -> Indices:
    if share and classes < 2:
        raise DataError("label noise needs another class to change to, and there is one: use more, or no label noise")
    y = y.copy()
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    if len(wrong):
        y[wrong] = (y[wrong] + rng.integers(1, classes, len(wrong), dtype=np.int64)) % classes
    return y


def _noisy_pixels(x: Array, sigma: float, rng: np.random.Generator) -> NDArray[Any]:
    x = x.copy()
    scale = np.float32(sigma * 255 if x.dtype == np.uint8 else sigma)
    for start in range(0, len(x) if sigma else 0, BLOCK):  # in blocks: noise for all of it would take four times x
        block = x[start : start + BLOCK]
        noisy = block + scale * rng.standard_normal(block.shape, np.float32)
        block[...] = np.rint(noisy).clip(0, 255) if x.dtype == np.uint8 else noisy
    return x
