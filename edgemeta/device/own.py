"""A device's own data, in any of the forms in which a user or a script gives it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgemeta.config import DataConfig
from edgemeta.data import Dataset, Split, from_arrays, open_data, with_classes
from edgemeta.data.dataset import split_by_content
from edgemeta.errors import DataError
from edgemeta.fed.participants import Participant, divide

# A SPEC; ((x_train, y_train), (x_test, y_test)) or (x, y), integer labels being positions in the run's classes; or a
# function that returns any of these.
Source = str | Path | tuple[Any, Any] | Callable[[], Any]


def own_part(
    source: Source, shape: tuple[int, ...], classes: Sequence[str], data: DataConfig, seed: int, k: int, *, cut: bool
) -> Participant:
    """Return the data of participant k, with its labels read and its samples not yet.

    cut: take the k-th part of the source under the run's partition and noise, the same as in a simulation; else all of
    the source is k's own. Raises DataError when there is nothing to train or to test on, when samples have another
    shape, and for classes that the run does not know.
    """
    given = source() if callable(source) else source
    split = open_data(str(given), shape=shape, seed=seed) if isinstance(given, str | Path) else _arrays(given, classes)
    if split.train.shape != tuple(shape):
        raise DataError(f"the data has samples of shape {split.train.shape}, and this run's model takes {tuple(shape)}")
    train, test = with_classes(split.train, classes), with_classes(split.test, classes)
    if cut:
        participants, _ = divide(Split(train, test), data, seed)
        if k >= len(participants):
            raise DataError(f"there is no part {k}: this run cuts its data into {len(participants)}, counted from 0")
        return participants[k]
    if not len(train) or not len(test):
        raise DataError(f"the data has {len(train)} training and {len(test)} test samples: add some of both")
    return Participant(train.for_participant(k), test.for_participant(k), k, seed)


def _arrays(given: Any, classes: Sequence[str]) -> Split:
    try:
        first, second = given
    except (TypeError, ValueError):
        raise DataError(
            f"data is {type(given).__name__}: expected a SPEC, (x, y), or ((x_train, y_train), (x_test, y_test))"
        ) from None

    def dataset(x: Any, y: Any) -> Dataset:
        return from_arrays(x, y, classes)

    if isinstance(first, tuple | list) and isinstance(second, tuple | list) and len(first) == len(second) == 2:
        split = Split(dataset(*first), dataset(*second))
        if split.train.shape != split.test.shape:
            raise DataError(f"training samples of shape {split.train.shape} and test samples of {split.test.shape}")
        return split
    whole = dataset(first, second)
    if not len(whole):
        raise DataError("the data is empty: give samples with their labels")
    return split_by_content(whole, whole.digests(), "arrays")
