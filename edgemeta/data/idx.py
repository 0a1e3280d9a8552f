"""IDX files (MNIST and its relatives), compressed or not: a big-endian header, then one byte for each value."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import (
    Array,
    Dataset,
    Indices,
    Read,
    Split,
    check_several,
    class_names,
    every,
    reader_of,
    reading,
)
from edgemeta.data.records import read_records
from edgemeta.errors import DataError

IMAGES, LABELS = 0x00000803, 0x00000801
HEADER = {IMAGES: 16, LABELS: 8}  # bytes
BLOCK_BYTES = 1 << 20


def open_idx(folder: Path) -> Split:
    """Return the data in a folder of {train,t10k}-{images,labels}* files; raises DataError that names the file."""
    files = [(_find(folder, f"{part}-images"), _find(folder, f"{part}-labels")) for part in ("train", "t10k")]
    sizes = [_check(images, IMAGES)[0] for images, _ in files]
    labels = [_labels(path) for _, path in files]
    for (images, path), size, y in zip(files, sizes, labels, strict=True):
        if size[0] != len(y):
            raise DataError(f"{images} has {size[0]} pictures and {path.name} {len(y)} labels: expected as many")
    if sizes[0][1:] != sizes[1][1:]:
        raise DataError(f"{folder}: training pictures are {sizes[0][1:]} and test pictures {sizes[1][1:]}")
    names = class_names(None, *labels)
    check_several(names, folder)
    train, test = (
        Dataset(y, names, (*size[1:], 1), _reader(images, size), every(len(y)))
        for (images, _), size, y in zip(files, sizes, labels, strict=True)
    )
    return Split(train, test, "IDX")


def _find(folder: Path, start: str) -> Path:
    # An unpacked file sorts before its .gz; it can be read record by record.
    found = sorted((path for path in folder.glob(f"{start}*") if path.is_file()), key=lambda path: path.suffix == ".gz")
    if not found:
        raise DataError(f"{folder} has no {start}*: expected train-images, train-labels, t10k-images and t10k-labels")
    return found[0]


def _check(path: Path, magic: int) -> tuple[tuple[int, ...], bytes]:
    """Return the sizes in the header, after going through the whole file, and what follows the header of labels."""
    kept = []
    with _opened(path) as file:
        head = file.read(HEADER[magic])
        if len(head) < HEADER[magic] or int.from_bytes(head[:4], "big") != magic:
            raise DataError(f"{path} starts with {head[:4].hex() or 'nothing'}: expected {magic:08x} and the sizes")
        sizes = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
        expected, there = int(np.prod([int(size) for size in sizes], dtype=object)), 0
        while there <= expected and (block := file.read(BLOCK_BYTES)):
            there += len(block)
            if magic == LABELS:
                kept.append(block)
    if there != expected or expected == 0:
        long = "more" if there > expected else there
        raise DataError(f"{path} should hold {expected} bytes for {sizes} and has {long}: it is damaged, get it again")
    return sizes, b"".join(kept)


def _labels(path: Path) -> Indices:
    return np.frombuffer(_check(path, LABELS)[1], np.uint8).astype(np.int64)


def _reader(path: Path, sizes: tuple[int, ...]) -> Read:
    shape = (*sizes[1:], 1)
    length = sizes[1] * sizes[2]

    @cache
    def unpacked() -> NDArray[np.uint8]:
        with _opened(path) as file:
            data = file.read()[HEADER[IMAGES] :]
        if len(data) != sizes[0] * length:
            raise DataError(f"{path} changed while it was in use: restore it, and start again")
        return np.frombuffer(data, np.uint8).reshape(sizes[0], *shape)

    def read(positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x = np.empty((len(positions), length), np.uint8)
        read_records(path, length, HEADER[IMAGES], positions, x, every(len(positions)))
        return x.reshape(-1, *shape), labels

    return reader_of(unpacked) if path.suffix == ".gz" else read


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with reading(path), cast(BinaryIO, opener(path, "rb")) as file:
            yield file
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): get it again") from None
