"""A device's own data, in any of the forms in which a user or a script gives it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgemeta.config import DataConfig
from edgemeta.data import Split, open_data, with_classes
from edgemeta.data.arrays import PAIRS, is_pair, kind_of, own_samples, own_split
from edgemeta.data.dataset import split_by_content
from edgemeta.errors import DataError, NoDataYet
from edgemeta.fed.participants import Participant, divide, left_over

log = logging.getLogger("edgemeta")

# A SPEC; ((x_train, y_train), (x_test, y_test)) or (x, y), labelled by the names of the run's classes or by positions
# among them; or a function that returns any of these.
Source = str | Path | tuple[Any, Any] | Callable[[], Any]


def own_part(
    source: Source, shape: tuple[int, ...], classes: Sequence[str], data: DataConfig, seed: int, k: int, *, cut: bool
) -> Participant:
    """Return the data of participant k, with its labels read and its samples not yet.

    cut: take the k-th part of the source under the run's partition and noise, the same as in a simulation; else all of
    the source is k's own. Raises DataError when there is nothing to train or to test on, when samples have another
    shape, and for classes that the run does not know.
    """
    try:
        given = source() if callable(source) else source
    except OSError as error:
        raise DataError(f"the data cannot be read ({error}): expected a function that returns samples") from error
    split = open_data(str(given), shape=shape, seed=seed) if isinstance(given, str | Path) else _arrays(given, classes)
    if split.train.shape != tuple(shape):
        raise DataError(f"the data has samples of shape {split.train.shape}, and this run's model takes {tuple(shape)}")
    train, test = with_classes(split.train, classes), with_classes(split.test, classes)
    if cut:
        participants, _ = divide(Split(train, test), data, seed)
        for line in left_over(Split(train, test), participants, data).why:
            log.warning("%s", line)
        if k >= len(participants):
            raise DataError(f"there is no part {k}: this run cuts its data into {len(participants)}, counted from 0")
        return participants[k]
    if not len(train) or not len(test):
        raise NoDataYet(f"the data has {len(train)} training and {len(test)} test samples: add some of both")
    return Participant(train.for_participant(k), test.for_participant(k), k, seed)


def _arrays(given: Any, classes: Sequence[str]) -> Split:
    if not is_pair(given):
        raise DataError(f"data is {kind_of(given)}: expected a SPEC, (x, y), or {PAIRS}")
    if all(map(is_pair, given)):
        return own_split(given, classes)
    x, y = given
    whole = own_samples(x, y, classes)
    if not len(whole):
        raise NoDataYet("the data is empty: give samples with their labels")
    return split_by_content(whole, whole.digests(), "arrays")
