"""CIFAR-10 and CIFAR-100, binary versions: records of label bytes and 3,072 pixels (red, green, blue, row by row)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Array, Dataset, Indices, Read, Split, class_names, every, reading, told
from edgemeta.data.places import left_out, look
from edgemeta.data.records import read_records
from edgemeta.data.text import lines_of
from edgemeta.errors import DataError
from edgemeta.names import shown

SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
RECORDS_AT_A_TIME = 500  # 1.5 MB
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DOCUMENTS = {"readme.html", "coarse_label_names.txt"}  # what the archives hold besides


@dataclass(frozen=True)
class Version:
    """How one of the two is stored. train and test: the files' names up to .bin. label_bytes: the last is the class."""

    kind: str
    train: str
    test: str
    names_file: str
    names: tuple[str, ...]
    label_bytes: int

    @property
    def record(self) -> int:
        """The length of a record in bytes."""
        return self.label_bytes + PIXELS


CIFAR_10 = Version("CIFAR-10 binary", r"data_batch_(?:\d+|[a-z]+)", "test_batch", "batches.meta.txt", NAMES, 1)
CIFAR_100 = Version("CIFAR-100 binary", "train", "test", "fine_label_names.txt", tuple(map(str, range(100))), 2)


def has_cifar_10(files: Sequence[str]) -> bool:
    """Say whether there are files called as those of CIFAR-10's binary version."""
    return any(re.fullmatch(r"(data_batch_|test_batch).*\.bin", name, re.IGNORECASE) for name in files)


def has_cifar_100(files: Sequence[str]) -> bool:
    """Say whether there are files called as those of CIFAR-100's binary version."""
    return {"train.bin", "test.bin"} <= {name.lower() for name in files}


def open_cifar(folder: Path, version: Version = CIFAR_10) -> Split:
    """Return the data in a folder of data_batch_*.bin and test_batch.bin, or of train.bin and test.bin.

    Raises DataError that names the file, or two of them where it is not clear which is meant.
    """
    place = look(folder)
    train, test = (_files(folder, list(place.files), name, version.record) for name in (version.train, version.test))
    if not train or not test:
        missing = "test_batch.bin" if train else "data_batch_1.bin"
        raise DataError(f"{folder} has no {missing}: unpack the whole {version.kind} version there")
    names_file = next((name for name in place.files if name.lower() == version.names_file), None)
    names = _names(folder / names_file, len(version.names)) if names_file else version.names
    used = {path.name for path in [*train, *test]} | {names_file or ""}
    used |= {name for name in place.files if name.lower() in DOCUMENTS}
    unused = tuple(left_out(place, used, f"beside {version.kind} files"))
    return Split(_dataset(train, names, version), _dataset(test, names, version), version.kind, 0, unused)


def _files(folder: Path, files: Sequence[str], name: str, record: int) -> list[Path]:
    """Return the files called `name`.bin, in order; raises DataError where one has a copy and both are whole."""
    found: dict[str, list[Path]] = {}
    for file in files:
        match = re.fullmatch(rf"(?:.*\W)?({name})(?![a-z0-9]).*", file, re.IGNORECASE)
        if match and ".bin" in file.lower():
            found.setdefault(match[1].lower(), []).append(folder / file)
    chosen = []
    for paths in found.values():
        # A checksum, or a failed download, is no copy.
        whole = [path for path in paths if _size(path) and _size(path) % record == 0] or paths
        if len(whole) > 1:
            raise DataError(
                f"{folder} has '{shown(whole[0].name)}' and '{shown(whole[1].name)}': leave one of them there"
            )
        chosen += whole
    return chosen


def _size(path: Path) -> int:
    with reading(path):
        return path.stat().st_size


def _dataset(files: list[Path], names: tuple[str, ...], version: Version) -> Dataset:
    parts = [_labels(file, len(names), version) for file in files]
    labels = np.concatenate(parts)
    return Dataset(labels, names, SHAPE, _reader(files, [len(part) for part in parts], version), every(len(labels)))


def _labels(path: Path, classes: int, version: Version) -> Indices:
    size = _size(path)
    if size == 0 or size % version.record:
        raise DataError(
            f"{path} has {size} bytes: expected records of {version.record} each; it was cut short or is something else"
        )
    found = []
    with reading(path), open(path, "rb") as file:
        while block := file.read(version.record * RECORDS_AT_A_TIME):
            found.append(np.frombuffer(block, np.uint8)[version.label_bytes - 1 :: version.record].astype(np.int64))
    labels = np.concatenate(found)
    if int(labels.max()) >= classes:
        record = int(np.argmax(labels >= classes))
        raise DataError(f"{path}: record {record} has label {labels[record]}: expected 0 to {classes - 1}")
    return labels


def _reader(files: list[Path], counts: list[int], version: Version) -> Read:
    ends = np.cumsum(np.array(counts, np.int64))

    def read(positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x: NDArray[np.uint8] = np.empty((len(positions), PIXELS), np.uint8)
        which = np.searchsorted(ends, positions, "right")
        for number, path in enumerate(files):
            rows = np.flatnonzero(which == number)
            start = int(ends[number]) - counts[number]
            read_records(path, version.record, version.label_bytes, positions[rows] - start, x, rows)
        return np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels

    return read


def _names(path: Path, expected: int) -> tuple[str, ...]:
    lines = lines_of(path)
    with told(path):
        names = class_names(lines)
    if len(names) != expected:
        raise DataError(f"{path} has {len(names)} names: expected {expected}, one in each line")
    return names
