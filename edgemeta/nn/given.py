"""What people give as samples and as labels, made into what networks work on: the one gate for every way in.

A picture is a sample of three axes (H, W, C). Its whole numbers, of any type, are bytes, and its floats are from 0 to
1; anything else would be taken as it is and mean something else than in training, so it is refused. Samples of other
shapes are numbers that mean what they say.
"""

import logging
import os
import re
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError
from edgemeta.names import canonical, listed

log = logging.getLogger("edgemeta")

SLACK = 0.05  # so far beyond 0..1 a float is rounding, or a resampled edge: taken as it is
MAX_LABEL = 2**31  # a larger number is no label, but something else in its place


class Labels(NamedTuple):
    """Labels as they were given. values: (N,) int64 numbers or text; columns: of one-hot labels how many, else 0."""

    values: NDArray[Any]
    columns: int = 0

    @property
    def text(self) -> bool:
        """Whether they are names."""
        return self.values.dtype.kind == "U"


def samples_of(given: Any, shape: Sequence[int] | None = None, name: str = "x") -> NDArray[Any]:
    """Return samples as networks take them: pictures (N, H, W, C) uint8 or float32, others (N, ...) float32.

    given: an array, or what NumPy makes one of; grey pictures may come without a channel axis. shape: of one sample,
    where it is known, and then one alone is a batch of one; where it is not, only uint8 samples of two axes are grey
    pictures. Of pictures, whole numbers of any type must be 0 to 255, and floats 0 to 1 (SLACK beyond is rounding;
    false and true are 0 and 1); others may be any finite numbers. Raises DataError that says what was expected. uint8
    pictures are returned as they are, without a look.
    """
    x = _array(given, name)
    if x.dtype == object:  # numbers one by one, or as arrays in an array
        x = _array(x.tolist(), name)
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name}: an array of dtype {x.dtype}, expected numbers, say uint8 pixels or floats")
    x = _batch(x, tuple(shape), name) if shape is not None else _rows(x, name)
    pictures = x.ndim == 4
    if pictures and x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        values = x if pictures and x.dtype.kind in "iu" else x.astype(np.float32, copy=False)
        low, high = (values.min(), values.max()) if values.size else (0, 0)  # NaN is both, when there is any
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name}: some values are not finite (or too large for float32): remove those samples")
    if not pictures:
        if shape is None and x.dtype.kind in "iu" and low >= 0 and 1 < high <= 255:
            log.warning(
                "%s: whole numbers from 0 to 255 in samples of shape %s, which are no pictures (H, W, C): "
                "they are taken as they are; if they are pixels, reshape them",
                *(name, x.shape[1:]),
            )
        return values
    most, slack = (255, 0.0) if values.dtype.kind in "iu" else (1, SLACK)
    if low < -slack or high > most + slack:
        kind = "whole numbers" if most == 255 else "floats"
        raise DataError(
            f"{name}: pictures of {kind} from {low:g} to {high:g}, "
            "expected whole numbers from 0 to 255 (bytes) or floats from 0 to 1: scale them"
        )
    return values.astype(np.uint8) if most == 255 else values


def read_labels(given: Any, name: str = "y") -> Labels:
    """Return labels in any form in which people have them: names, whole numbers, (N, 1), or one-hot rows (N, classes).

    Raises DataError for anything else: a label that is missing, a fraction, a row without a single 1.
    """
    values = _label_array(given, name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    text = values.dtype.kind == "U"
    if values.ndim != 1 and (text or values.ndim != 2):
        raise DataError(f"{name}: shape {values.shape}, expected (N,), one label for each sample, or one-hot rows")
    if text:
        return Labels(values)
    if values.ndim == 2:
        hot = values == 1
        good = (hot.sum(axis=1) == 1) & (hot | (values == 0)).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"{name}: shape {values.shape}, and row {row} is {reprlib.repr(values[row].tolist())}, "
                "expected (N,) whole numbers or names, or one-hot rows with a single 1"
            )
        return Labels(hot.argmax(axis=1).astype(np.int64), values.shape[1])
    numbers = values.astype(np.float64)
    good = (numbers == np.floor(numbers)) & (np.abs(numbers) < MAX_LABEL)  # false for NaN
    if not good.all():
        label = int(np.argmin(good))
        raise DataError(f"{name}: label {label} is {values[label]}, expected whole numbers, or names")
    return Labels(values.astype(np.int64))


def positions(labels: Labels, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return where labels stand in `classes`, a model's: names by name, whole numbers and one-hot rows by position.

    Raises DataError for what is not there.
    """
    values, columns = labels
    if columns not in (0, len(classes)):
        raise DataError(f"one-hot labels of {columns} columns: expected {len(classes)}, for {listed(classes)}")
    known = [_name(name, "classes") for name in classes] if labels.text else range(len(classes))
    places = {label: i for i, label in enumerate(known)}
    given = values.tolist()
    if unknown := sorted(set(given) - set(places)):
        raise DataError(f"the model does not know {listed(unknown)}: its classes are {listed(classes)}")
    return np.array([places[label] for label in given], np.int64)


def refuse_numbers(labels: Labels, classes: Sequence[str]) -> None:
    """Raise DataError for whole numbers as labels where `classes`, which others named, are other numbers.

    With classes "3" and "7", is 1 the second, or none? With "1" and "2", the wrong guess would be wrong in silence.
    """
    if not (labels.text or labels.columns) and any(_is_another_number(name, i) for i, name in enumerate(classes)):
        raise DataError(f"whole numbers could be names or positions of {listed(classes)}: give names, as text")


def targets_of(given: Any, name: str = "y") -> NDArray[Any]:
    """Return a regression network's targets, any finite numbers, as an array; raises DataError for anything else."""
    targets = _array(given, name)
    if targets.dtype.kind not in "biuf" or not targets.ndim or not np.isfinite(targets).all():
        raise DataError(f"{name}: no targets, expected finite numbers, one or more for each sample")
    return targets


def _batch(x: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    if x.shape == (0,):  # an empty list
        return x.reshape(0, *shape)
    if len(shape) == 3 and shape[2] == 1 and x.shape != shape and shape[:2] in (x.shape, x.shape[1:]):
        x = x[..., np.newaxis]
    if x.shape != shape and (x.ndim == 0 or x.shape[1:] != shape):
        raise DataError(f"{name}: shape {x.shape}, and this network takes {shape}, one sample or a batch of them")
    return x[np.newaxis] if x.shape == shape else x


def _rows(x: NDArray[Any], name: str) -> NDArray[Any]:
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError(f"{name}: shape {x.shape}, expected (N, ...), one row for each sample")
    return x[..., np.newaxis] if x.ndim == 3 and x.dtype == np.uint8 else x


def _array(given: Any, name: str, dtype: Any = None) -> NDArray[Any]:
    if type(given) is np.ndarray:  # the usual case, in no time
        return given
    if given is None or isinstance(given, str | bytes | os.PathLike):
        what = reprlib.repr(given if given is None or isinstance(given, str | bytes) else os.fspath(given))
        raise DataError(f"{name}: {what} is no array; of files, read_picture and open_data in edgemeta.data make some")
    if np.ma.is_masked(given):
        raise DataError(f"{name}: some values are masked: fill them in, or leave those samples out")
    try:
        return np.asarray(given, dtype)
    except Exception as error:  # of any kind: an object's own way to become an array may raise what it likes
        raise DataError(f"{name}: no array ({error}), expected samples that are all of one shape") from None


def _label_array(given: Any, name: str) -> NDArray[Any]:
    """Return labels as an array of numbers, or of names in canonical form; raises DataError for anything else."""
    # A list's as objects: among text, NumPy would make text of numbers, and of what is missing.
    array = _array(given, name, object if isinstance(given, list | tuple) else None)
    if array.dtype.kind not in "biufOSTU":
        raise DataError(f"{name}: dtype {array.dtype}, expected names, or whole numbers")
    if array.dtype.kind in "biuf":
        return array
    labels = [label.item() if isinstance(label, np.generic) else label for label in array.astype(object).flat]
    texts = [isinstance(label, str | bytes) for label in labels]
    if labels and all(texts):
        return np.array([_name(label, name) for label in labels], np.str_).reshape(array.shape)
    # None of both: among names, NaN is the one that is missing.
    odd = [i for i, label in enumerate(labels) if not (texts[i] or _is_number(label))]
    if odd or any(texts):
        wrong = odd[0] if odd else texts.index(not texts[0])
        what = reprlib.repr(labels[wrong])
        raise DataError(f"{name}: label {wrong} is {what}, expected names for all, or whole numbers for all")
    return np.asarray(array.tolist())


def _is_number(label: Any) -> bool:
    return isinstance(label, int | float) and abs(label) < MAX_LABEL


def _name(text: str | bytes, name: str) -> str:
    try:
        return canonical(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError:
        raise DataError(f"{name}: {reprlib.repr(text)} is no name in UTF-8") from None


def _is_another_number(name: str, position: int) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", name) is not None and name != str(position)
