"""What a participant keeps between rounds and never sends: a personal head, its own control variate, ...

Local work leaves its private vectors under the number of its round. Which of them count is the coordinator's word: the
next task names the last round whose update was counted, so a round that was repeated or lost advances nothing twice.
"""

from collections.abc import Mapping
from pathlib import Path

from edgemeta.nn import Vector
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.storage import write_atomic


def load_private(folder: Path, counted: int) -> dict[str, Vector]:
    """Return the private vectors that the round `counted` left, or none."""
    path = folder / f"private-{counted:06d}.safetensors"
    return read_tensors(path)[0] if path.exists() else {}


def save_private(folder: Path, round_number: int, counted: int, private: Mapping[str, Vector]) -> None:
    """Keep what a round's work left, beside what counts until then; the rest is removed. Raises StorageError."""
    if not private:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"private-{round_number:06d}.safetensors", encode_tensors(private, {}))
    rounds = {int(path.stem.removeprefix("private-")): path for path in folder.glob("private-*.safetensors")}
    earlier = max((number for number in rounds if number < counted), default=None)  # it may count again
    for number, path in rounds.items():
        if number not in (round_number, counted, earlier):
            path.unlink()
