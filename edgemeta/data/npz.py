"""Arrays in an .npz file: x and y, or x_train and y_train, and perhaps x_test, y_test, classes and participants."""

import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.data.dataset import (
    Array,
    Dataset,
    Owners,
    Split,
    Unused,
    check_samples,
    class_names,
    every,
    indices_of,
    names_of,
    prepared,
    reader_of,
    split_by_content,
    told,
)
from edgemeta.errors import DataError
from edgemeta.names import shown
from edgemeta.nn.given import Labels, read_labels

HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # the same, with other letters in names of fields, which none has here
}
TRAIN, VALIDATION = ("", "_train"), ("_val", "_valid", "_validation")  # what follows x and y


def open_npz(path: Path) -> Split:
    """Return the data in a file written by numpy.savez (or savez_compressed); raises DataError that says what is wrong.

    The training arrays are x and y or, as Keras calls them, x_train and y_train; capitals are as good. Without x_test
    and y_test, x_val and y_val take their place; without either, a hash of each sample decides on which side it is.
    x is read when it is first used. participant (participant_train, participant_test) names whose each sample is.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    known: dict[str, str] = {}
    for name in there:
        if known.setdefault(name.lower(), name) != name:
            raise DataError(f"{path} has {shown(known[name.lower()])} and {shown(name)}: leave one of them there")
    endings = _endings(path, known)
    sides = [(known[f"x{ending}"], known[f"y{ending}"]) for ending in endings]
    whose = [known[name] for ending in endings if (name := f"participant{ending}") in known]
    labels = [_labels(path, x, y) for x, y in sides]
    with told(path):
        names = class_names(_read(path, known["classes"]).ravel()) if "classes" in known else names_of(*labels)
    parts = [_dataset(path, x, y, names) for (x, _), y in zip(sides, labels, strict=True)]
    if whose:
        parts = _owned(path, parts, whose)
    others = [name for name in there if name not in {known.get("classes"), *whose, *sum(sides, ())}]
    unused = tuple(Unused(shown(name), _rows(path, name), "not asked for", "rows") for name in others)
    if len(parts) == 1:
        return split_by_content(parts[0], parts[0].digests(), "npz", 0, unused)
    if parts[0].shape != parts[1].shape:
        raise DataError(
            f"{path}: {sides[0][0]} has samples of {parts[0].shape} and {sides[1][0]} of {parts[1].shape}: "
            "expected the same"
        )
    return Split(parts[0], parts[1], "npz", 0, unused)


def _endings(path: Path, known: Collection[str]) -> list[str]:
    """Return what follows x and y in the names of the training and, if there are any, the test arrays."""
    trains = [ending for ending in TRAIN if f"x{ending}" in known or f"y{ending}" in known]
    tests = ["_test"] if "x_test" in known or "y_test" in known else []
    tests = tests or [ending for ending in VALIDATION if f"x{ending}" in known and f"y{ending}" in known]
    for two in (trains, tests):
        if len(two) > 1:
            raise DataError(f"{path} has x{two[0]} or y{two[0]}, and x{two[1]} or y{two[1]}: leave one pair there")
    endings = [*(trains or TRAIN[:1]), *tests]
    if missing := [f"{axis}{ending}" for ending in endings for axis in "xy" if f"{axis}{ending}" not in known]:
        raise DataError(
            f"{path} has no {', '.join(missing)}: expected x and y (or x_train and y_train), and x_test with y_test "
            f"or neither; it has {shown(', '.join(known)) or 'no arrays'}"
        )
    return endings


def _labels(path: Path, x: str, y: str) -> Labels:
    """Return the labels in the array called y: one for each sample of x, in any form that arrays may have."""
    shape, dtype = _header(path, x)
    given = _read(path, y)
    with told(path):
        check_samples(shape, dtype, len(given) if given.ndim else -1)
        return read_labels(given, y)


def _owned(path: Path, parts: list[Dataset], arrays: list[str]) -> list[Dataset]:
    """Return the samples with whose they are, by names or whole numbers in an array for each side."""
    if len(arrays) < len(parts):
        raise DataError(f"{path} says in {arrays[0]} whose samples are, on one side: give both, or neither")
    each = []
    for part, name in zip(parts, arrays, strict=True):
        array = _read(path, name)
        with told(f"{path}: {name}"):
            given = read_labels(array, name)
            if given.columns or len(given.values) != len(part):
                raise DataError(
                    f"{len(given.values)} rows: expected a name or a number for each of {len(part)} samples"
                )
        each.append(given.values)
    if len({values.dtype.kind for values in each if len(values)}) > 1:
        raise DataError(f"{path}: {' and '.join(arrays)}: expected names, or whole numbers, in both")
    found, numbers = np.unique(np.concatenate(each), return_inverse=True)
    with told(f"{path}: {arrays[0]}"):
        names = class_names(found.tolist() if found.dtype.kind == "U" else map(str, found.tolist()))
    sides = np.split(numbers.reshape(-1).astype(np.int64), [len(parts[0])])
    return [replace(part, owners=Owners(names, side)) for part, side in zip(parts, sides, strict=False)]


def _rows(path: Path, name: str) -> int:
    shape, _ = _header(path, name)
    return shape[0] if shape else 1


def _dataset(path: Path, name: str, y: Labels, names: tuple[str, ...]) -> Dataset:
    shape, dtype = _header(path, name)
    with told(path):
        labels = indices_of(y, names)
    sample = (*shape[1:], 1) if dtype == np.uint8 and len(shape) == 3 else shape[1:]

    @cache
    def values() -> Array:
        x = _read(path, name)
        if x.shape != shape:
            raise DataError(f"{path} changed while it was in use: start again")
        with told(path):
            return prepared(x)

    return Dataset(labels, names, sample, reader_of(values), every(len(labels)))


def _header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with _readable(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
    return shape, dtype


def _read(path: Path, name: str) -> Array:
    with _readable(path), np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    # A damaged archive raises one of a dozen kinds (zip, zlib, struct, value, memory, key ...), by where the damage is.
    try:
        yield
    except Exception as error:
        raise DataError(
            f"cannot read {path} ({error}): expected a file that numpy.savez wrote, of plain arrays"
        ) from None
