"""A task on its way out, in the files that its round began with: the next round removes them under a slow reader."""

from contextlib import ExitStack
from typing import NamedTuple

from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.server_step import SHARED
from edgemeta.http.exchange import FilePart
from edgemeta.nn.files import read_header
from edgemeta.reading import Reader


class Outgoing(NamedTuple):
    """The message's header, and its vectors in open files, which whoever sends it closes."""

    header: bytes
    vectors: list[FilePart]
    files: ExitStack


def opened(header: bytes, coordinator: Coordinator) -> Outgoing:
    """Return a task of the open round; a slow reader of it keeps files open, nothing in memory. Raises StorageError."""
    with ExitStack() as files:
        model = files.enter_context(Reader(coordinator.model_path))
        start = 8 + int.from_bytes(model.read_at(8, 0), "little")  # a model's data is the whole vector, in order
        vectors = [FilePart(model.fileno(), 4 * coordinator.sizes["theta"], start)]
        if coordinator.beside:
            state = files.enter_context(Reader(coordinator.state_path))
            offsets = read_header(state).tensors
            for name, vector in coordinator.beside.items():
                vectors.append(FilePart(state.fileno(), vector.nbytes, offsets[SHARED + name][2]))
        return Outgoing(header, vectors, files.pop_all())
