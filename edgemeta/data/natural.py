"""The partition `natural`: participants that the data itself names."""

import numpy as np

from edgemeta.data.dataset import Dataset, Indices
from edgemeta.data.partitions import Partition
from edgemeta.errors import DataError
from edgemeta.names import listed


def natural(train: Dataset, test: Dataset, participants: int, rng: np.random.Generator) -> Partition:
    """Return as many of the data's own participants, drawn without repetition: the last ones are the held-out ones.

    Each has its samples of both sides, in random order, and they are not made equal. Raises DataError where the data
    names no participants, or fewer.
    """
    if train.owners is None or test.owners is None:
        raise DataError(
            "data.partition is 'natural', and this data names no participants: expected Omniglot's folders, or an "
            ".npz with an array 'participant' beside 'y' (participant_train beside y_train, and so on)"
        )
    names = train.owners.names
    if not 0 < participants <= len(names):
        raise DataError(
            f"data.participants is {participants}, and the data names {len(names)} ({listed(names)}): "
            f"give 1 to {len(names)}"
        )
    drawn = rng.permutation(len(names))[:participants].tolist()
    parts = [[_of(owners.numbers, k, rng) for k in drawn] for owners in (train.owners, test.owners)]
    left = [len(side) - sum(map(len, part)) for side, part in zip((train, test), parts, strict=True)]
    return Partition(parts[0], parts[1], (left[0], left[1]))


def _of(numbers: Indices, owner: int, rng: np.random.Generator) -> Indices:
    return rng.permutation(np.flatnonzero(numbers == owner)).astype(np.int64)
