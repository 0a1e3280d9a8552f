"""Folding a round's updates into one: the rows of `AGGREGATORS`.

An update is delta = client - server. Aggregators fold (delta, weight) pairs in the order given, which is by
participant number and never by arrival; weights are numbers of training samples.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgemeta.nn import Vector
from edgemeta.records import NoSettings

BLOCK = 1 << 16  # parameters read and handled at once, so that the float64 products stay in the cache


class Numbers(Protocol):
    """A vector, or what stands for one in a file: numbers[a:b] is (b - a,) float32, good until the next part is."""

    def __getitem__(self, part: slice, /) -> Vector: ...


Updates = Iterable[tuple[Numbers, int]]
NOTHING = NoSettings()


@dataclass(frozen=True)
class Aggregator:
    """fold: (updates, how many numbers each has, settings) -> vector. settings: their record, with the defaults."""

    fold: Callable[[Updates, int, Any], Vector]
    settings: type
    paper: str


def weighted_mean(updates: Updates, size: int, _settings: NoSettings = NOTHING) -> Vector:
    """FedAvg's mean, sum n_k/n delta_k (McMahan et al. 2017), summed in float64 one update at a time.

    Returns (size,) float32. Of a delta one block is needed at a time, so they can stay in files.
    """
    total, samples = np.zeros(size, np.float64), 0
    scratch = np.empty(min(size, BLOCK), np.float64)  # used again: new memory for each block takes twice the time
    for delta, weight in updates:
        for start in range(0, size, BLOCK):
            block = total[start : start + BLOCK]
            block += np.multiply(delta[start : start + BLOCK], weight, out=scratch[: block.size], dtype=np.float64)
        samples += weight
    total /= samples
    return total.astype(np.float32)


AGGREGATORS: dict[str, Aggregator] = {
    "mean": Aggregator(weighted_mean, NoSettings, "McMahan et al. 2017, arXiv:1602.05629"),
}
