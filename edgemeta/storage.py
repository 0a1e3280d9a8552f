"""Files that are either old or new after a power cut, never half of each."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemeta.errors import StorageError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "give a folder that can be written"
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; {advice}, and run the same command"
        ) from error


def write_atomic(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` to a temporary file beside `path`, flush it to the disk, and rename it over `path`.

    Raises StorageError; then `path` is as it was.
    """
    temporary = path.parent / (path.name + ".tmp")
    with storing(path):
        try:
            with open(temporary, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too leaves nothing behind
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
