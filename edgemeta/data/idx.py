"""IDX files (MNIST and its relatives), compressed or not: a big-endian header, then one byte for each value."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Array, Dataset, Indices, Read, Split, class_names, every, reader_of, reading, told
from edgemeta.data.places import left_out, look
from edgemeta.data.records import read_records
from edgemeta.data.text import lines_of
from edgemeta.errors import DataError
from edgemeta.names import shown

IMAGES, LABELS = 0x00000803, 0x00000801
HEADER = {IMAGES: 16, LABELS: 8}  # bytes
BLOCK_BYTES = 1 << 20
BYTES, GZIP = b"\x00\x00\x08", b"\x1f\x8b"  # how IDX files of bytes start, and gzip files
NAME = re.compile(r"(.*?)(train|t10k|test)[-_.](images|labels)(.*?)(\.gz)?", re.IGNORECASE)
USUAL = re.compile(r"[-_.]?idx\d[-_.]ubyte", re.IGNORECASE)  # said in a name of any set
Part = tuple[str, str]  # train or test, images or labels


def has_idx(folder: Path, files: Sequence[str]) -> bool:
    """Say whether there are IDX files: by name and by how they start, or by name alone where one may be damaged."""
    named = [name for name in files if NAME.fullmatch(name)]
    return any(USUAL.search(name) or _starts_as_idx(folder / name) for name in named)


def open_idx(folder: Path) -> Split:
    """Return the data in a folder of {train,t10k}-{images,labels}* files; test- means t10k-, and a name may go before.

    EMNIST's pictures, which are stored lying on their side, are turned upright, and its mapping file names its classes.
    Raises DataError that names the file, or a file of each set where there are several.
    """
    place = look(folder)
    before, parts = _only_set(folder, list(place.files))
    images, labelled = ([parts[side, what] for side in ("train", "test")] for what in ("images", "labels"))
    sizes = [_check(path, IMAGES)[0] for path in images]
    labels = [_labels(path) for path in labelled]
    for path, named, size, y in zip(images, labelled, sizes, labels, strict=True):
        if size[0] != len(y):
            raise DataError(f"{path} has {size[0]} pictures and {named.name} {len(y)} labels: expected as many")
    if sizes[0][1:] != sizes[1][1:]:
        raise DataError(f"{folder}: training pictures are {sizes[0][1:]} and test pictures {sizes[1][1:]}")
    lying = before.startswith("emnist")
    mapping = next((name for name in place.files if lying and name.lower() == f"{before}mapping.txt"), None)
    names, labels = _mapped(folder / mapping, labels) if mapping else (class_names(None, *labels), labels)
    height, width = sizes[0][:0:-1] if lying else sizes[0][1:]
    train, test = (
        Dataset(y, names, (height, width, 1), _reader(path, size, lying), every(len(y)))
        for path, size, y in zip(images, sizes, labels, strict=True)
    )
    used = {path.name for path in parts.values()} | {mapping or ""}
    used |= {name for name in place.files if _unpacked(name) in used}
    return Split(train, test, "EMNIST" if lying else "IDX", 0, tuple(left_out(place, used, "beside IDX files")))


def _only_set(folder: Path, files: Sequence[str]) -> tuple[str, dict[Part, Path]]:
    """Return what stands before the names of the one set in a folder, and each part's file, unpacked if it is there."""
    found: list[tuple[tuple[str, str], Part, Path]] = []  # the first: what stands before and behind a part's name
    for name in files:
        if (match := NAME.fullmatch(name)) and _unpacked(name) not in files:
            before, side, what, behind, _ = (group.lower() for group in match.groups(""))
            part = ("train" if side == "train" else "test", what)
            found.append(((before, USUAL.sub("", behind)), part, folder / name))
    good = {names for names, _, path in found if _starts_as_idx(path)}
    found = [one for one in found if one[0] in good] or found  # a checksum, or a failed download, is no set
    first, parts = found[0], dict[Part, Path]()
    for names, part, path in found:
        other = parts.setdefault(part, path)
        if other is path and names != first[0]:
            other = first[2]
        if other is not path:
            raise DataError(
                f"{folder} has files of more than one set, such as '{shown(other.name)}' and '{shown(path.name)}': "
                "leave one set there, its four files named alike"
            )
    before = first[0][0]
    for side in ("train", "test"):
        for what in ("images", "labels"):
            if (side, what) not in parts:
                raise DataError(
                    f"{folder} has no {before}{'t10k' if side == 'test' else side}-{what}*: "
                    "expected train-images, train-labels, t10k-images and t10k-labels"
                )
    return before, parts


def _unpacked(name: str) -> str | None:
    """Return the name of a compressed file without its ending, or None."""
    return name[:-3] if name.lower().endswith(".gz") else None


def _starts_as_idx(path: Path) -> bool:
    try:
        return _start(path).startswith((BYTES, GZIP))
    except OSError:
        return False


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(3)


def _mapped(path: Path, labels: Sequence[Indices]) -> tuple[tuple[str, ...], list[Indices]]:
    """Return the names in EMNIST's mapping, lines of a label and its characters' codes, and labels counted from 0."""
    known: dict[int, str] = {}
    for line in lines_of(path):
        try:
            label, code, *_ = map(int, line.split())
            known[label] = chr(code)
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}: {line!r}: expected a label and the number of its character, such as '10 65'"
            ) from None
    order = sorted(known)
    with told(path):
        names = class_names([known[label] for label in order])
    for y in labels:
        if unknown := sorted(set(y.tolist()) - set(order)):
            raise DataError(f"{path} does not name label {unknown[0]}: expected a line for each label in the set")
    return names, [np.searchsorted(np.array(order, np.int64), y).astype(np.int64) for y in labels]


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


def _reader(path: Path, sizes: tuple[int, ...], lying: bool) -> Read:
    length = sizes[1] * sizes[2]

    def upright(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x = values.reshape(-1, *sizes[1:], 1)
        return np.ascontiguousarray(x.swapaxes(1, 2)) if lying else x

    @cache
    def unpacked() -> NDArray[np.uint8]:
        with _opened(path) as file:
            data = file.read()[HEADER[IMAGES] :]
        if len(data) != sizes[0] * length:
            raise DataError(f"{path} changed while it was in use: restore it, and start again")
        return upright(np.frombuffer(data, np.uint8))

    def read(positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x = np.empty((len(positions), length), np.uint8)
        read_records(path, length, HEADER[IMAGES], positions, x, every(len(positions)))
        return upright(x), labels

    return reader_of(unpacked) if _is_packed(path) else read


def _is_packed(path: Path) -> bool:
    # By its content: browsers unpack a .gz on the way and leave its name, and call a second one ".gz (1)".
    with reading(path):
        return _start(path).startswith(GZIP)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    opener = gzip.open if _is_packed(path) else open
    try:
        with reading(path), cast(BinaryIO, opener(path, "rb")) as file:
            yield file
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): get it again") from None
