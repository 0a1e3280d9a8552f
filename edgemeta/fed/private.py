"""What a participant keeps between rounds and never sends: a personal head, its own control variate, ...

Local work leaves its private vectors under the number of its round. Which of them count is the coordinator's word: the
next task names the last round whose update was counted, so a round that was repeated or lost advances nothing twice.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edgemeta.disk import make_folder, remove
from edgemeta.errors import ModelFileError
from edgemeta.meta.learners import keeps_head
from edgemeta.meta.personal_heads import OWN_HEAD, rows_of
from edgemeta.nn import Vector
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.reading import exists, names
from edgemeta.storage import storing, write_atomic


def private_path(folder: Path, round_number: int) -> Path:
    """Return where the private vectors that a round left are kept."""
    return folder / f"private-{round_number:06d}.safetensors"


class OwnHead(NamedTuple):
    """A participant's own head, and the names of its classes, in the order of its outputs."""

    vector: Vector
    classes: tuple[str, ...]

    def of(self, classes: Sequence[str]) -> Vector:
        """Return it as the head of the classes that there are now."""
        return self.vector if self.classes == tuple(classes) else rows_of(*self, classes)


def load_private(folder: Path, counted: int, classes: Sequence[str]) -> dict[str, Vector]:
    """Return the private vectors that the round `counted` left, or none; raises ModelFileError and StorageError.

    classes: the participant's, by which a head is put in order.
    """
    found, head = _read(private_path(folder, counted))
    return found | ({OWN_HEAD: head.of(classes)} if head else {})


def load_head(folder: Path, counted: int, algorithm: str) -> OwnHead | None:
    """Return the head that a participant has of its own with a learner, if it has one; raises as `load_private`."""
    return _read(private_path(folder, counted))[1] if keeps_head(algorithm) else None


def save_private(
    folder: Path, round_number: int, counted: int, private: Mapping[str, Vector], classes: Sequence[str]
) -> None:
    """Keep what a round's work left, beside what counts until then; the rest is removed. Raises StorageError.

    classes: the participant's names, which are kept with a head; neither leaves the device.
    """
    if not private:
        return
    if not exists(folder):
        with storing(folder):
            make_folder(folder)
    metadata = {"classes": json.dumps(list(classes))} if OWN_HEAD in private else {}
    write_atomic(private_path(folder, round_number), encode_tensors(private, metadata), private=True)
    rounds = {int(Path(name).stem.removeprefix("private-")): name for name in private_files(folder)}
    for number in outlived(rounds, round_number, counted):
        with storing(folder):
            remove(folder / rounds[number])


def outlived(rounds: Collection[int], round_number: int, counted: int) -> list[int]:
    """Return of which rounds nothing need be kept any more, when `round_number` has left something."""
    earlier = max((number for number in rounds if number < counted), default=None)  # it may count again
    return [number for number in rounds if number not in (round_number, counted, earlier)]


def private_files(folder: Path) -> list[str]:
    """Return the names of the files of private vectors in a folder."""
    return [name for name in names(folder) if name.startswith("private-") and name.endswith(".safetensors")]


def _read(path: Path) -> tuple[dict[str, Vector], OwnHead | None]:
    """Return private vectors, and the head among them, where there is one."""
    found, metadata = read_tensors(path) if exists(path) else ({}, {})
    if OWN_HEAD not in found:
        return found, None
    try:
        head = OwnHead(found[OWN_HEAD], tuple(json.loads(metadata["classes"])))
        if not head.classes or head.vector.size % len(head.classes):
            raise ValueError(f"{len(head.classes)} classes for a head of {head.vector.size} numbers")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"cannot use {path}: {error!r}") from None
    return found, head
