"""Reading files that must not be mistaken: an error is no absence and no damage.

It is a StorageError, after which the same may be tried again.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemeta import disk
from edgemeta.errors import StorageError

BLOCK = 1 << 16  # bytes read at once


class Missing(StorageError):
    """There is no such file."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to read `path` into a StorageError: into Missing where there is no file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Missing(f"cannot read {path}: {said(error)}") from error
    except (OSError, MemoryError) as error:
        advice = "let this user read it" if isinstance(error, PermissionError) else "try again"
        raise StorageError(f"cannot read {path}: {said(error)}; {advice}") from error


def said(error: BaseException) -> str:
    """Return what an error of the operating system is, for people."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.errno == errno.ELOOP and error.strerror == os.strerror(errno.ELOOP):
        return "there is a link in its place, and none is followed"
    return str(getattr(error, "strerror", None) or error)


class Reader:
    """A file, open for reading, that stays what it is when another one takes its name. Raises Missing, StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        with reading(path):
            self._descriptor = disk.open_file(path)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            disk.system.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def status(self) -> os.stat_result:
        """Return what is known of the file."""
        with reading(self.path):
            found: os.stat_result = disk.system.fstat(self._descriptor)
            return found

    def read(self, size: int = BLOCK) -> bytes:
        """Return the next bytes, b"" at the end."""
        with reading(self.path):
            data: bytes = disk.system.read(self._descriptor, size)
            return data

    def read_at(self, size: int, offset: int) -> bytes:
        """Return the bytes from `offset` on, fewer at the end."""
        block = bytearray(size)
        return bytes(block[: self.fill(memoryview(block), offset)])

    def fill(self, block: memoryview, offset: int) -> int:
        """Read into `block` from `offset` on; return how many bytes there were."""
        done = 0
        with reading(self.path):
            while done < len(block):
                count = disk.system.preadv(self._descriptor, [block[done:]], offset + done)
                if not count:
                    break
                done += count
        return done


def followed(path: str | Path) -> Path:
    """Return where a path leads that a user gave to be read: in those, links are followed."""
    there = "" if "\0" in str(path) else os.path.realpath(path)
    return Path(there if there and there != os.path.abspath(path) else path)


def read_file(path: Path) -> bytes | None:
    """Return what is in a file, or None where there is no file; raises StorageError."""
    try:
        with Reader(path) as file:
            return b"".join(iter(file.read, b""))
    except Missing as error:
        if isinstance(error.__cause__, IsADirectoryError):
            raise
        return None


def lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a part of a file, with their ends; nothing where there is no file. Raises StorageError."""
    if not exists(path):
        return
    with Reader(path) as file:
        end = file.status().st_size if end is None else end
        rest = b""
        while start < end and (block := file.read_at(min(BLOCK, end - start), start)):
            start += len(block)
            *whole, rest = (rest + block).splitlines(keepends=True)
            yield from whole
            if rest.endswith(b"\n"):
                yield rest
                rest = b""
        if rest:
            yield rest


def exists(path: Path) -> bool:
    """Say whether there is something; raises StorageError when that cannot be told."""
    with reading(path):
        return disk.look(path) is not None


def file_size(path: Path) -> int:
    """Return how many bytes a file has; raises Missing, StorageError."""
    with Reader(path) as file:
        return file.status().st_size


def names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; raises StorageError."""
    with reading(folder):
        return disk.names(folder)
