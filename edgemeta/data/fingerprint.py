"""What tells one data set from another: little enough to be kept beside a run, and found out in no time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgemeta.data.dataset import Indices, Split

FORMAT = 1
LOOKED_AT = 32  # training samples whose values are read, and as many for testing, at fixed places in all of them


def fingerprint(splits: Sequence[Split]) -> dict[str, Any]:
    """Return what stays the same wherever data lies and whenever it was written, ready for JSON.

    splits: one data set, or each participant's own. {"format", "train", "test": how many samples, "labels": a hash of
    the classes, the shape and all labels, "samples": a hash of the values of 64 samples}. Raises DataError when those
    cannot be read.
    """
    first, labels, samples = splits[0].train, hashlib.sha256(), hashlib.sha256()
    labels.update(json.dumps([first.classes, first.shape, [len(split.train) for split in splits]]).encode())
    sides = [split.train for split in splits], [split.test for split in splits]
    for side in sides:
        for part, places in zip(side, _places([len(part) for part in side]), strict=True):
            labels.update(part.labels.astype("<i8").tobytes())
            if len(places):
                x, _ = part.take(places).load()
                samples.update(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).data)
    train, test = (sum(map(len, side)) for side in sides)
    return {
        "format": FORMAT,
        "train": train,
        "test": test,
        "labels": labels.hexdigest(),
        "samples": samples.hexdigest(),
    }


def unlike(kept: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return in what two fingerprints differ, in words: nothing, where they are of the same data."""
    counted = [key for key in ("train", "test") if kept[key] != found[key]]
    other = {"labels": "other classes or labels", "samples": "other values in the samples"}
    said = [text for key, text in other.items() if kept[key] != found[key]]
    return [f"{kept[key]} {key} samples, and now {found[key]}" for key in counted] or said


def _places(counts: Sequence[int]) -> list[Indices]:
    """Return the places, in each part, of the samples to look at: spread evenly over all parts."""
    total = sum(counts)
    chosen = np.arange(min(LOOKED_AT, total), dtype=np.int64) * total // max(min(LOOKED_AT, total), 1)
    ends = np.cumsum(np.array([0, *counts], np.int64)).tolist()
    return [chosen[(chosen >= ends[i]) & (chosen < ends[i + 1])] - ends[i] for i in range(len(counts))]
