"""A device's own data, in any of the forms in which a user or a script gives it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.config import DataConfig
from edgemeta.data import Split, from_arrays, open_data, own_classes, with_classes
from edgemeta.data.arrays import PAIRS, is_pair, kind_of, named_split, own_samples, own_split
from edgemeta.data.dataset import Array, split_by_content
from edgemeta.errors import DataError, NoDataYet
from edgemeta.fed.participants import Participant, divide, left_over, with_own_classes
from edgemeta.reading import exists, followed

log = logging.getLogger("edgemeta")

# A SPEC; ((x_train, y_train), (x_test, y_test)) or (x, y), labelled by the names of the run's classes or by positions
# among them; or a function that returns any of these.
Source = str | Path | tuple[Any, Any] | Callable[[], Any]
LEARNED = "learned"  # in a state directory: what was taught where the data is no folder
USUAL = "synthetic"  # where no data is given, and the classes are the run's


def own_part(
    source: Source | None,
    shape: tuple[int, ...],
    classes: Sequence[str],
    data: DataConfig,
    seed: int,
    k: int,
    *,
    cut: bool,
) -> Participant:
    """Return the data of participant k, with its labels read and its samples not yet.

    classes: the run's; none, where every participant has its own. cut: take the k-th part of the source under the run's
    partition and noise, the same as in a simulation; else all of the source is k's own. Raises DataError when there is
    nothing to train or to test on, when samples have another shape, and for classes that the run does not know.
    """
    if source is None and not classes:
        raise DataError("every device of this run has its own classes: give this one its own data, as --data FOLDER")
    try:
        given = USUAL if source is None else source() if callable(source) else source
    except OSError as error:
        raise DataError(f"the data cannot be read ({error}): expected a function that returns samples") from error
    split = open_data(str(given), shape=shape, seed=seed) if isinstance(given, str | Path) else _arrays(given, classes)
    if split.train.shape != tuple(shape):
        raise DataError(f"the data has samples of shape {split.train.shape}, and this run's model takes {tuple(shape)}")
    train, test = split.train, split.test
    if classes:
        train, test = with_classes(train, classes), with_classes(test, classes)
    elif not cut:
        split = own_classes(split)
        train, test = split.train, split.test
    if cut:
        participants, _ = divide(Split(train, test), data, seed)
        for line in left_over(Split(train, test), participants, data).why:
            log.warning("%s", line)
        if k >= len(participants):
            raise DataError(f"there is no part {k}: this run cuts its data into {len(participants)}, counted from 0")
        return participants[k] if classes else with_own_classes(participants[k])
    if not len(train) or not len(test):
        raise NoDataYet(f"the data has {len(train)} training and {len(test)} test samples: add some of both")
    return Participant(train.for_participant(k), test.for_participant(k), k, seed)


def _arrays(given: Any, classes: Sequence[str]) -> Split:
    if not is_pair(given):
        raise DataError(f"data is {kind_of(given)}: expected a SPEC, (x, y), or {PAIRS}")
    if all(map(is_pair, given)):
        return own_split(given, classes) if classes else named_split(given)
    x, y = given
    whole = own_samples(x, y, classes) if classes else from_arrays(x, y)
    if not len(whole):
        raise NoDataYet("the data is empty: give samples with their labels")
    return split_by_content(whole, whole.digests(), "arrays")


def with_learned(part: Participant, new: Array, labels: list[str]) -> Participant:
    """Add pictures that a device was taught, uint8 (N, H, W, C), to the training samples of its own data."""
    x, y = part.train_set.load()
    if x.dtype != np.uint8:
        new = new.astype(np.float32) / np.float32(255)
    names = [part.train_set.classes[k] for k in y.tolist()] + labels
    classes = tuple(sorted({*part.train_set.classes, *labels}))
    train = with_classes(from_arrays(np.concatenate([x, new]), names), classes)
    return replace(part, train_set=train, test_set=with_classes(part.test_set, classes))


def root_of(source: Source) -> Path | None:
    """Return the folder that a device's data is, or will be when there is something in it; None for other data."""
    if not isinstance(source, str | Path) or str(source).partition(":")[0] == USUAL:
        return None
    root = followed(Path(source).expanduser())
    return root if root.is_dir() or not exists(root) else None
