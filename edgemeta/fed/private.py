"""What a participant keeps between rounds and never sends: a personal head, its own control variate, ...

Local work leaves its private vectors under the number of its round. Which of them count is the coordinator's word: the
next task names the last round whose update was counted, so a round that was repeated or lost advances nothing twice.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from edgemeta.disk import make_folder, remove
from edgemeta.nn import Vector
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.reading import exists, names
from edgemeta.storage import storing, write_atomic


def private_path(folder: Path, round_number: int) -> Path:
    """Return where the private vectors that a round left are kept."""
    return folder / f"private-{round_number:06d}.safetensors"


def load_private(folder: Path, counted: int) -> dict[str, Vector]:
    """Return the private vectors that the round `counted` left, or none; raises ModelFileError and StorageError."""
    path = private_path(folder, counted)
    return read_tensors(path)[0] if exists(path) else {}


def save_private(folder: Path, round_number: int, counted: int, private: Mapping[str, Vector]) -> None:
    """Keep what a round's work left, beside what counts until then; the rest is removed. Raises StorageError."""
    if not private:
        return
    if not exists(folder):
        with storing(folder):
            make_folder(folder)
    write_atomic(private_path(folder, round_number), encode_tensors(private, {}), private=True)
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
