"""Samples that are known by their labels and read when they are used."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError, NoDataYet
from edgemeta.names import canonical, class_names_of
from edgemeta.nn.given import Labels, positions, read_labels, samples_of

Array = NDArray[Any]
Indices = NDArray[np.int64]
# (positions in the source, their labels) -> (x, y): both are shorter where a sample turned out to be unreadable.
Read = Callable[[Indices, Indices], tuple[Array, Indices]]

MAX_UNNAMED_CLASSES = 10_000  # a larger label without a list of names is a mistake, and would cost a name for each
TEST_SHARE = 6  # where there is no test data, one sample in six is taken for it
BLOCK = 256  # samples held at a time where all of a set is gone through


class Owners(NamedTuple):
    """Whose samples are whose, where the data itself says so. numbers: (N,) int64 indices into `names`."""

    names: tuple[str, ...]
    numbers: Indices


@dataclass(frozen=True, eq=False)
class Dataset:
    """Some samples of a source.

    labels: (N,) int64 indices into `classes`. shape: of one sample, (H, W, C) for pictures. read: how the source
    reads; positions: (N,) which of its samples these are. styled: where the source has styles, participant -> read.
    owners: where the source names participants.
    """

    labels: Indices
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    read: Read
    positions: Indices
    styled: Callable[[int], Read] | None = None
    owners: Owners | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Any) -> "Dataset":
        """Return the samples at `indices` (or under a boolean mask); nothing is read."""
        owners = self.owners and self.owners._replace(numbers=self.owners.numbers[indices])
        return replace(self, labels=self.labels[indices], positions=self.positions[indices], owners=owners)

    def load(self) -> tuple[Array, Indices]:
        """Return (x, y), read now: x (N, *shape) uint8 pixels or float32, y (N,) int64.

        A picture that cannot be decoded is left out with a warning. Raises DataError when the source cannot be read.
        """
        return self.read(self.positions, self.labels)

    def for_participant(self, number: int) -> "Dataset":
        """Return these samples as participant `number` sees them: another style in the synthetic set, else the same."""
        return self if self.styled is None else replace(self, read=self.styled(number))

    def digests(self) -> list[str]:
        """Return a hash of each sample's values, reading some samples at a time."""
        found = []
        for start in range(0, len(self), BLOCK):
            x, _ = self.take(slice(start, start + BLOCK)).load()
            found += [hashlib.sha256(np.ascontiguousarray(sample).data).hexdigest() for sample in x]
        return found


@dataclass(frozen=True)
class Unused:
    """Something that lies beside the samples and is left out. count: of files, or of an array's rows (unit)."""

    name: str
    count: int
    why: str
    unit: str = "files"

    def __str__(self) -> str:
        number = f"{self.count} {self.unit if self.count != 1 else self.unit[:-1]}"
        return f"{self.name} ({number}, {self.why})"


@dataclass(frozen=True)
class Split:
    """Training and test samples with the same classes and shape.

    skipped: files in the classes' folders that could not be used. unused: what else was found and left out.
    """

    train: Dataset
    test: Dataset
    kind: str = "arrays"
    skipped: int = 0
    unused: tuple[Unused, ...] = ()


def from_arrays(x: Any, y: Any, classes: Sequence[str] | None = None) -> Dataset:
    """Return one's own arrays as a Dataset.

    x: (N, ...), see `edgemeta.nn.given.samples_of`: pictures as bytes or from 0 to 1 (grey uint8 ones may come without
    a channel axis), other samples as any finite numbers. y: a name for each sample, or a whole number (an index into
    `classes`), as (N,), (N, 1) or one-hot rows. classes: the names, by default those of the labels in order, or "0",
    "1", ... Raises DataError for anything else.
    """
    values, given = samples_of(x), read_labels(y)
    check_samples(values.shape, values.dtype, len(given.values))
    names = names_of(given) if classes is None else class_names(classes)
    labels = indices_of(given, names)
    return Dataset(labels, names, values.shape[1:], reader_of(lambda: values), every(len(labels)))


def names_of(*given: Labels) -> tuple[str, ...]:
    """Return the classes of labels that come without a list, their own names in order, or "0", "1", ...

    Raises DataError where some are names and others numbers, and for a number too large to have so many classes.
    """
    there = [labels for labels in given if len(labels.values)]  # none are neither names nor numbers
    if not any(labels.text for labels in there):
        columns = [np.array([labels.columns - 1], np.int64) for labels in there if labels.columns]
        return class_names(None, *(labels.values for labels in there), *columns)
    if not all(labels.text for labels in there):
        raise DataError("some labels are names and others numbers: expected names, or whole numbers, for all")
    return class_names(sorted({name for labels in there for name in labels.values.tolist()}))


def indices_of(given: Labels, names: Sequence[str]) -> Indices:
    """Return labels as indices into `names`; raises DataError for those that are none."""
    return positions(given, names) if given.text or given.columns else checked_labels(given.values, len(names))


def reader_of(values: Callable[[], Array]) -> Read:
    """Return a reader of what `values` returns, called when samples are first wanted."""
    return lambda positions, labels: (values()[positions], labels)


def every(count: int) -> Indices:
    """Return the positions of all of a source's samples."""
    return np.arange(count, dtype=np.int64)


def check_samples(shape: tuple[int, ...], dtype: np.dtype[Any], labels: int) -> None:
    """Raise DataError unless an array of this shape and dtype can hold the samples of so many labels."""
    if dtype.kind not in "biuf":
        raise DataError(f"x has dtype {dtype}: expected uint8 pixels or floats; convert it")
    if len(shape) < 2 or 0 in shape[1:]:
        raise DataError(f"x has shape {shape}: expected (N, ...), one row for each sample")
    if shape[0] != labels:
        raise DataError(f"x has {shape[0]} samples and y {max(labels, 0)} labels: expected one label for each sample")


def prepared(x: Array) -> Array:
    """Return samples as they are kept: uint8 pixels (N, H, W, C), or float32; raises DataError, see `samples_of`."""
    return samples_of(x)


def class_names(classes: Any, *labels: Array) -> tuple[str, ...]:
    """Return the names given, or else "0", "1", ... for as many classes as there are labels; raises DataError.

    A name is text, or bytes in UTF-8; see `edgemeta.names` for what it may be. It is returned in Unicode's form NFC.
    """
    if classes is not None:
        if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
            raise DataError(f"classes is {classes!r}: expected a list of names")
        return class_names_of(classes)
    highest = max((int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"), default=0)
    if highest >= MAX_UNNAMED_CLASSES:
        raise DataError(f"label {highest}: without a list of classes, labels must be below {MAX_UNNAMED_CLASSES}")
    return tuple(str(number) for number in range(highest + 1))


def check_several(parts: Iterable[Dataset]) -> None:
    """Raise DataError unless the samples of all parts together are of two classes or more.

    One device may have a single class, so readers take it; a run of one class in all has nothing to tell apart.
    """
    found = sorted({part.classes[i] for part in parts for i in np.unique(part.labels).tolist()})
    if len(found) < 2:
        raise DataError(f"all samples are of one class ({''.join(found)}): expected two or more to tell apart")


def check_apart(parts: Iterable[Dataset]) -> None:
    """Raise DataError unless a part has samples of two classes or more; those with one have nothing to tell apart."""
    if all(len(np.unique(part.labels)) < 2 for part in parts):
        raise DataError("every participant has samples of one class: expected two or more to tell apart, with somebody")


def checked_labels(y: Array, classes: int) -> Indices:
    """Return labels as int64; raises DataError unless they are whole numbers from 0 to classes - 1, one a sample."""
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"y has dtype {y.dtype} and shape {y.shape}: expected (N,) whole numbers")
    if y.size and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise DataError(f"labels run from {y.min()} to {y.max()}: expected 0 to {classes - 1} for {classes} classes")
    return y.astype(np.int64)


def class_counts(labels: Indices, classes: int) -> NDArray[np.int64]:
    """Return the number of samples of each class."""
    return np.bincount(labels.astype(np.intp), minlength=classes).astype(np.int64)  # intp: bincount's index on 32 bits


def split_by_content(
    data: Dataset, digests: Sequence[str], kind: str, skipped: int = 0, unused: tuple[Unused, ...] = ()
) -> Split:
    """Return a split in which a sample's own content (its hexadecimal digest) decides on which side it is.

    About a sixth is for testing. A set may grow: no sample ever changes sides, and equal ones are on the same side.
    Raises DataError where a set is so small that all fell on one side: moving one over would break that promise.
    """
    test = np.array([int(digest[:12], 16) % TEST_SHARE == 0 for digest in digests], bool)
    if test.all() or not test.any():
        side = "test" if test.any() else "training"
        raise NoDataYet(
            f"{len(data)} samples are too few to set some aside by their content (all fell on the {side} side): "
            "add samples, or give training and test data apart"
        )
    return Split(data.take(~test), data.take(test), kind, skipped, unused)


def with_classes(data: Dataset, classes: Sequence[str]) -> Dataset:
    """Return the samples labelled by position in `classes`, a model's, by name; it may have more than the data.

    Names are compared in canonical form. Raises DataError that names the classes which the model does not know.
    """
    known: dict[str, int] = {}
    for number, name in enumerate(classes):
        known.setdefault(canonical(name), number)
    numbers = np.array([known.get(canonical(name), -1) for name in data.classes], np.int64)
    if unknown := [data.classes[i] for i in np.unique(data.labels).tolist() if numbers[i] < 0]:
        raise DataError(f"the model does not know {', '.join(unknown)}: its classes are {', '.join(classes)}")
    return replace(data, labels=numbers[data.labels], classes=tuple(classes))


def own_classes(split: Split, rng: np.random.Generator | None = None) -> Split:
    """Return samples labelled among the classes that there are of them, on either side, and no others.

    rng: draws an order of the classes; without it they stay in theirs.
    """
    there = np.union1d(split.train.labels, split.test.labels)
    order = there if rng is None else rng.permutation(there)
    places = np.full(len(split.train.classes), -1, np.int64)
    places[order] = np.arange(len(order), dtype=np.int64)
    names = tuple(split.train.classes[k] for k in order.tolist())
    train, test = (replace(side, labels=places[side.labels], classes=names) for side in (split.train, split.test))
    return replace(split, train=train, test=test)


def describe(split: Split) -> dict[str, Any]:
    """Return a summary, ready for JSON: kind, shape, sizes, what is left out, and samples of each class.

    And, where the data names them, its participants.
    """
    count = len(split.train.classes)
    train, test = (class_counts(part.labels, count).tolist() for part in (split.train, split.test))
    return {
        "kind": split.kind,
        "shape": list(split.train.shape),
        "train": len(split.train),
        "test": len(split.test),
        "skipped": split.skipped,
        "unused": [asdict(unused) for unused in split.unused],
        **({"participants": list(split.train.owners.names)} if split.train.owners else {}),
        "classes": {name: {"train": train[i], "test": test[i]} for i, name in enumerate(split.train.classes)},
    }


@contextmanager
def told(where: Path | str) -> Iterator[None]:
    """Say in a DataError which file or folder, or whose part, it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to read `path` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; expected a file that can be read") from None
