"""One's own arrays, in pairs: ((x_train, y_train), (x_test, y_test)) for a device, or for each participant of a run."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgemeta.data.dataset import Dataset, Split, from_arrays, names_of, told
from edgemeta.errors import DataError
from edgemeta.nn.given import read_labels, refuse_numbers

PAIRS = "((x_train, y_train), (x_test, y_test))"


def is_pair(given: Any) -> bool:
    """Say whether this is a tuple or list of two; an array of two samples is none."""
    return isinstance(given, tuple | list) and len(given) == 2


def kind_of(given: Any) -> str:
    """Return what something is that was to be a pair, for a message."""
    return type(given).__name__ + (f" of {len(given)}" if isinstance(given, tuple | list) else "")


def own_samples(x: Any, y: Any, classes: Sequence[str]) -> Dataset:
    """Return one's own arrays labelled as `classes`, a run's, are; see `from_arrays` and `refuse_numbers`."""
    refuse_numbers(read_labels(y), classes)
    return from_arrays(x, y, classes)


def own_split(given: Sequence[Any], classes: Sequence[str]) -> Split:
    """Return what PAIRS hold, labelled as `classes` are; raises DataError that says which part is wrong."""
    parts = []
    for (x, y), side in zip(given, ("training", "test"), strict=True):
        with told(f"{side} data"):
            parts.append(own_samples(x, y, classes))
    train, test = parts
    if train.shape != test.shape:
        raise DataError(f"training samples of shape {train.shape} and test samples of {test.shape}")
    return Split(train, test)


def named_split(given: Sequence[Any]) -> Split:
    """Return what PAIRS hold, labelled by the classes that its own labels name; numbers are names, too."""
    labels = [read_labels(y, name) for (_, y), name in zip(given, ("y_train", "y_test"), strict=True)]
    return own_split(given, names_of(*labels))


def named_splits(data: Any) -> list[Split]:
    """Return the samples of each participant in `data`, an iterable of PAIRS, each with classes of its own."""
    splits = list[Split]()
    for k, given in enumerate(_listed(data)):
        with told(f"participant {k}"):
            splits.append(_checked(named_split(given), splits))
    return splits


def own_splits(data: Any, asked: Sequence[str] | int | None = None, outputs: int | None = None) -> list[Split]:
    """Return the samples of each participant, in `data`: an iterable of PAIRS.

    asked: the classes' names, or how many there are; without them they are the labels' own names, or as many as the
    labels say; but no fewer than `outputs`, a network's. Raises DataError that says whose data is wrong and what was
    expected: pairs, samples of one shape, and some of both sides.
    """
    participants = _listed(data)
    if asked is None or isinstance(asked, int):
        classes = _names(participants, asked or outputs or 0)
    else:
        classes = tuple(asked)
    splits: list[Split] = []
    for k, given in enumerate(participants):
        with told(f"participant {k}"):
            splits.append(_checked(own_split(given, classes), splits))
    return splits


def _checked(split: Split, others: Sequence[Split]) -> Split:
    if not len(split.train) or not len(split.test):
        raise DataError(f"{len(split.train)} training and {len(split.test)} test samples: give some of both")
    if others and split.train.shape != others[0].train.shape:
        raise DataError(f"samples of shape {split.train.shape}, and participant 0 has {others[0].train.shape}")
    return split


def _listed(data: Any) -> list[Any]:
    expected = f"expected a list, even of one, with {PAIRS} for each participant"
    if isinstance(data, str | bytes | os.PathLike | Mapping) or not isinstance(data, Iterable):
        raise DataError(f"data is {kind_of(data)}: {expected}; the setting data.source is for what is in files")
    participants = list(data)
    if not participants:
        raise DataError(f"data is empty: {expected}")
    for k, given in enumerate(participants):
        if not (is_pair(given) and all(map(is_pair, given))):
            parts = f" ({', '.join(map(kind_of, given))})" if is_pair(given) else ""
            raise DataError(f"participant {k} is {kind_of(given)}{parts}: {expected}")
    return participants


def _names(participants: Sequence[Any], least: int) -> tuple[str, ...]:
    found = []
    for k, given in enumerate(participants):
        with told(f"participant {k}"):
            found += [read_labels(y, name) for (_, y), name in zip(given, ("y_train", "y_test"), strict=True)]
    names = names_of(*found)
    numbered = tuple(map(str, range(max(least, len(names)))))
    return numbered if names == numbered[: len(names)] else names
