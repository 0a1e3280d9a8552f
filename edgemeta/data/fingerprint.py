"""What tells one data set from another: little enough to be kept beside a run, and found out in no time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemeta.data.dataset import Indices, Split
from edgemeta.data.omniglot import KIND as OMNIGLOT

FORMAT = "edgemeta-data/1"
LOOKED_AT = 32  # training samples whose values are read, and as many for testing, at fixed places in all of them


@dataclass(frozen=True)
class Fingerprint:
    """What stays the same wherever data lies and whenever it was written.

    train, test: how many samples; labels: a hash of the classes, the shape, all labels, and whose the samples are;
    samples: a hash of the values of 64 samples.
    """

    train: int
    test: int
    labels: str
    samples: str

    def unlike(self, other: "Fingerprint") -> list[str]:
        """Return in what another one differs, in words: nothing, where both are of the same data."""
        counts = {"train": (self.train, other.train), "test": (self.test, other.test)}
        said = [f"{mine} {side} samples, and now {others}" for side, (mine, others) in counts.items() if mine != others]
        if not said and self.labels != other.labels:
            said.append("other classes or labels")
        if not said and self.samples != other.samples:
            said.append("other values in the samples")
        return said


def fingerprint(splits: Sequence[Split]) -> Fingerprint:
    """Return the fingerprint of a data set, or of all participants' own; raises DataError when it cannot be read."""
    first, labels, samples = splits[0].train, hashlib.sha256(), hashlib.sha256()
    labels.update(json.dumps([first.classes, first.shape, [len(split.train) for split in splits]]).encode())
    sides = [split.train for split in splits], [split.test for split in splits]
    told = splits[0].kind == OMNIGLOT  # whose samples are, by the classes' names: they begin with the alphabet
    for side in sides:
        for part, places in zip(side, _places([len(part) for part in side]), strict=True):
            labels.update(part.labels.astype("<i8").tobytes())
            if part.owners is not None and not told:
                labels.update(part.owners.numbers.astype("<i8").tobytes())
            if len(places):
                x, _ = part.take(places).load()
                samples.update(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).data)
    train, test = (sum(map(len, side)) for side in sides)
    return Fingerprint(train, test, labels.hexdigest(), samples.hexdigest())


def _places(counts: Sequence[int]) -> list[Indices]:
    """Return the places, in each part, of the samples to look at: spread evenly over all parts."""
    total = sum(counts)
    chosen = np.arange(min(LOOKED_AT, total), dtype=np.int64) * total // max(min(LOOKED_AT, total), 1)
    ends = np.cumsum(np.array([0, *counts], np.int64)).tolist()
    return [chosen[(chosen >= ends[i]) & (chosen < ends[i + 1])] - ends[i] for i in range(len(counts))]
