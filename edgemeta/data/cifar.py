"""CIFAR-10, binary version: files of records, each a label byte and 3,072 bytes (red, green, blue, row by row)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Array, Dataset, Indices, Read, Split, class_names, every, reading
from edgemeta.data.records import read_records
from edgemeta.errors import DataError

SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
RECORD = 1 + PIXELS
RECORDS_AT_A_TIME = 500  # 1.5 MB
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_cifar(folder: Path) -> Split:
    """Return the data in a folder of data_batch_*.bin and test_batch.bin; raises DataError that names the file."""
    batches, test = sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin"
    if not batches or not test.is_file():
        missing = "test_batch.bin" if batches else "data_batch_1.bin"
        raise DataError(f"{folder} has no {missing}: unpack the whole CIFAR-10 binary version there")
    names = _names(folder / "batches.meta.txt")
    return Split(_dataset(batches, names), _dataset([test], names), "CIFAR-10 binary")


def _dataset(files: list[Path], names: tuple[str, ...]) -> Dataset:
    parts = [_labels(file, len(names)) for file in files]
    labels = np.concatenate(parts)
    return Dataset(labels, names, SHAPE, _reader(files, [len(part) for part in parts]), every(len(labels)))


def _labels(path: Path, classes: int) -> Indices:
    with reading(path):
        size = path.stat().st_size
        if size == 0 or size % RECORD:
            raise DataError(
                f"{path} has {size} bytes: expected records of {RECORD} each; it was cut short or is something else"
            )
        found = []
        with open(path, "rb") as file:
            while block := file.read(RECORD * RECORDS_AT_A_TIME):
                found.append(np.frombuffer(block, np.uint8)[::RECORD].astype(np.int64))
    labels = np.concatenate(found)
    if int(labels.max()) >= classes:
        record = int(np.argmax(labels >= classes))
        raise DataError(f"{path}: record {record} has label {labels[record]}: expected 0 to {classes - 1}")
    return labels


def _reader(files: list[Path], counts: list[int]) -> Read:
    ends = np.cumsum(np.array(counts, np.int64))

    def read(positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x: NDArray[np.uint8] = np.empty((len(positions), PIXELS), np.uint8)
        which = np.searchsorted(ends, positions, "right")
        for number, path in enumerate(files):
            rows = np.flatnonzero(which == number)
            start = int(ends[number]) - counts[number]
            read_records(path, RECORD, 1, positions[rows] - start, x, rows)
        return np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels

    return read


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return NAMES
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = class_names([line.strip() for line in lines if line.strip()])
    if len(names) != len(NAMES):
        raise DataError(f"{path} has {len(names)} names: expected {len(NAMES)}, one in each line")
    return names
