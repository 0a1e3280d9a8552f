"""Arrays in an .npz file: x, y, and perhaps x_test, y_test and classes."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.data.dataset import (
    Array,
    Dataset,
    Split,
    check_samples,
    check_several,
    checked_labels,
    class_names,
    every,
    prepared,
    reader_of,
    split_by_content,
)
from edgemeta.errors import DataError

HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def open_npz(path: Path) -> Split:
    """Return the data in a file written by numpy.savez (or savez_compressed); raises DataError that says what is wrong.

    Without x_test and y_test, a hash of each sample decides on which side it is. x is read when it is first used.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
    tested = there & {"x_test", "y_test"}
    needed = {"x", "y", "x_test", "y_test"} if tested else {"x", "y"}
    if missing := sorted(needed - there):
        raise DataError(f"{path} has no {', '.join(missing)}: expected x and y, and x_test with y_test or neither")
    labels = [_read(path, name) for name in ("y", "y_test") if name in there]
    names = class_names(_read(path, "classes").ravel() if "classes" in there else None, *labels)
    parts = [_dataset(path, name, y, names) for name, y in zip(("x", "x_test"), labels, strict=False)]
    check_several(names, path)
    if not tested:
        return split_by_content(parts[0], parts[0].digests(), "npz")
    if parts[0].shape != parts[1].shape:
        raise DataError(f"{path}: x has samples of {parts[0].shape} and x_test of {parts[1].shape}: expected the same")
    return Split(parts[0], parts[1], "npz")


def _dataset(path: Path, name: str, y: Array, names: tuple[str, ...]) -> Dataset:
    shape, dtype = _header(path, name)
    try:
        check_samples(shape, dtype, len(y) if y.ndim else -1)
        labels = checked_labels(y, len(names))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    sample = (*shape[1:], 1) if dtype == np.uint8 and len(shape) == 3 else shape[1:]

    @cache
    def values() -> Array:
        x = _read(path, name)
        if x.shape != shape:
            raise DataError(f"{path} changed while it was in use: start again")
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
