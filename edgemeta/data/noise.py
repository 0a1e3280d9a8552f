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

    label_noise: the share of labels that become another one of the classes that these samples have (of all, if they
    have one), drawn uniformly: so it means the same whether classes have common names or are a participant's own.
    pixel_noise: the sigma of a normal variate added to each value, in the pixel range 0..1; uint8 pixels are clipped to
    their range, floats are not.
    """
    return _noisy_pixels(x, pixel_noise, rng), _noisy_labels(y, classes, label_noise, rng)


def _noisy_labels(y: Indices, classes: int, share: float, rng: np.random.Generator) -> Indices:
    if share and classes < 2:
        raise DataError("label noise needs another class to change to, and there is one: use more, or no label noise")
    there = np.unique(y)
    if len(there) < 2:
        there = np.arange(classes, dtype=np.int64)
    places = np.searchsorted(there, y)
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    if len(wrong):
        places[wrong] = (places[wrong] + rng.integers(1, len(there), len(wrong), dtype=np.int64)) % len(there)
    return there[places]


def _noisy_pixels(x: Array, sigma: float, rng: np.random.Generator) -> NDArray[Any]:
    x = x.copy()
    scale = np.float32(sigma * 255 if x.dtype == np.uint8 else sigma)
    for start in range(0, len(x) if sigma else 0, BLOCK):  # in blocks: noise for all of it would take four times x
        block = x[start : start + BLOCK]
        noisy = block + scale * rng.standard_normal(block.shape, np.float32)
        block[...] = np.rint(noisy).clip(0, 255) if x.dtype == np.uint8 else noisy
    return x
