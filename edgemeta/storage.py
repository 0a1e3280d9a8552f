"""Files that are either old or new after a power cut, never half of each."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemeta import disk
from edgemeta.disk import Made
from edgemeta.errors import ConfigError, StorageError
from edgemeta.reading import exists, read_file, said
from edgemeta.records import Record, record_from

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # a network's file system, say
PASSING = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what may be otherwise a moment later
PUBLIC, PRIVATE = 0o644, 0o600
LOCK_TRIES, LOCK_S = 100, 0.05  # a change takes some milliseconds


class Damaged(ConfigError):
    """A file that a program keeps for itself is not what it wrote."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into a StorageError that says what to do."""
    try:
        yield
    except (OSError, MemoryError) as error:
        number = getattr(error, "errno", errno.ENOMEM)
        advice = "give a folder that can be written"
        if number in FULL:
            advice = "free some space"
        elif number in PASSING:
            advice = "if it stays so, look at the system's log"
        raise StorageError(f"cannot write {path}: {said(error)}; {advice}, and run the same command") from error


def write_atomic(path: Path, parts: Iterable[bytes | memoryview], *, private: bool = False) -> None:
    """Write `parts` to a temporary file beside `path`, flush it to the disk, and rename it over `path`.

    private: nobody but the owner may read it. Raises StorageError; then `path` is as it was, or new and perhaps not
    there after a power cut.
    """
    with storing(path), disk.place(path, disk.FOLDER) as (folder, name):
        with _temporary(folder, name, parts, PRIVATE if private else PUBLIC) as temporary:
            disk.system.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        disk.flush_folder(folder)


def write_new(path: Path, parts: Iterable[bytes], before: Callable[[], None]) -> bool:
    """Write a private file, and return whether that was done: it is not where there is something already.

    It belongs to this user, whoever its folder belongs to. before: called when all of it is on the disk under another
    name, and nothing under its own. Raises StorageError.
    """
    if exists(path):
        return False
    with storing(path), disk.place(path, disk.FOLDER) as (folder, name):
        with _temporary(folder, name, parts, PRIVATE, own=True) as temporary:
            before()
            try:
                if not disk.link(path.with_name(temporary), path):
                    disk.system.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                made = True
            except FileExistsError:  # somebody was faster
                made = False
            disk.remove(path.with_name(temporary))
        disk.flush_folder(folder)
    return made


@contextmanager
def _temporary(
    folder: int, name: str, parts: Iterable[bytes | memoryview], mode: int, *, own: bool = False
) -> Iterator[str]:
    """Give the name of a whole file, flushed, that is gone when anything goes wrong. own: see `disk.create`."""
    temporary = name + ".tmp"
    try:
        with suppress(FileNotFoundError):
            disk.system.unlink(temporary, dir_fd=folder)  # of a kill
        descriptor = disk.create(folder, temporary, mode, own=own)
        try:
            for part in parts:
                disk.write_all(descriptor, part)
            disk.system.fsync(descriptor)
        finally:
            disk.system.close(descriptor)
        yield temporary
    except BaseException:  # Ctrl-C too leaves nothing behind
        with suppress(OSError):
            disk.system.unlink(temporary, dir_fd=folder)
        raise


def write_block(path: Path, block: bytes | bytearray | memoryview, made: Made | None, *, last: bool) -> Made:
    """Write the next block of a private file that is not to be read before its last one, which is flushed.

    made: what was returned for the block before, None for the first one. The file is open no longer than for a block.
    """
    with storing(path):
        if made is None:
            with disk.place(path) as (folder, name):
                with suppress(FileNotFoundError):
                    disk.system.unlink(name, dir_fd=folder)
                descriptor = disk.create(folder, name, PRIVATE)
        else:
            descriptor = disk.open_again(path, made, os.O_WRONLY | os.O_APPEND)
        try:
            disk.write_all(descriptor, block)
            if last:
                disk.system.fsync(descriptor)
            return made or disk.identity(descriptor)
        finally:
            disk.system.close(descriptor)


def append(path: Path, data: bytes, after: int) -> int:
    """Write `data` `after` so many bytes of a file, made where there is none; return how many there are then.

    Flushed, as the entry of a new file is.
    """
    with storing(path), disk.place(path, disk.FOLDER) as (folder, name):
        new = disk.look(path) is None
        descriptor = disk.create(folder, name, PUBLIC) if new else disk.open_file(path, os.O_WRONLY)
        try:
            disk.system.ftruncate(descriptor, after)
            disk.system.lseek(descriptor, after, os.SEEK_SET)
            disk.write_all(descriptor, data)
            disk.system.fsync(descriptor)
        finally:
            disk.system.close(descriptor)
        if new:
            disk.flush_folder(folder)
    return after + len(data)


def set_aside(path: Path) -> Path:
    """Give a damaged file a name that says so, and return that: whoever looks into it later may need it."""
    aside = path.with_name(path.name + ".damaged")
    with storing(aside):
        disk.rename(path, aside)
        disk.sync_folder(path.parent)
    return aside


def lock(path: Path) -> int | None:
    """Return the descriptor of a file that is locked until it is closed; None when another process has it.

    Only its owner may open it, as whoever reads a file can lock it. Raises StorageError.
    """
    with storing(path):
        with disk.place(path) as (folder, name):
            try:
                descriptor = disk.create(folder, name, PRIVATE)
            except FileExistsError:
                descriptor = disk.open_file(path, os.O_RDWR)
        try:
            with suppress(PermissionError):
                disk.system.fchmod(descriptor, PRIVATE)  # of a version that let others read it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            disk.system.close(descriptor)
            return None
        except OSError as error:
            disk.system.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            raise StorageError(
                f"the file system of {path.parent} has no locks ({said(error)}), and without them two processes could "
                "write there at once: give a folder on another file system, such as this machine's own disk"
            ) from error
        except BaseException:
            disk.system.close(descriptor)
            raise
        return descriptor


def held_here(path: Path) -> bool:
    """Say whether it is this process that has the lock of a file, as far as the system tells (Linux does)."""
    found = disk.look(path)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    # Number, FLOCK, ADVISORY, WRITE, process, device:device:file, from, to
    held = [(fields[4], fields[5].rpartition(":")[2]) for fields in map(str.split, lines) if fields[1] == "FLOCK"]
    return found is not None and (str(os.getpid()), str(found.st_ino)) in held


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file for a change that takes some milliseconds; raises StorageError when another one stays."""
    for _ in range(LOCK_TRIES):
        descriptor = lock(path)
        if descriptor is not None:
            break
        time.sleep(LOCK_S)
    else:
        raise StorageError(f"another process has held {path} for {LOCK_TRIES * LOCK_S:g} s: end it, or try again")
    try:
        yield
    finally:
        disk.system.close(descriptor)


def write_kept(path: Path, record: Any, form: str, *, private: bool = False) -> None:
    """Write a record, a dataclass, as a file for `read_kept`."""
    text = json.dumps({"format": form, **asdict(record)}, indent=1, allow_nan=False)
    write_atomic(path, [text.encode()], private=private)


def read_kept(path: Path, kind: type[Record], form: str, advice: str) -> Record | None:
    """Return the record that a program keeps for itself in a JSON file, or None where there is no file.

    form: "edgemeta-NAME/N", the newest format that is understood. A file of an older one may lack keys: they have the
    record's defaults; one without a format is the oldest. advice: what to do about a damaged one. Raises Damaged for
    it, ConfigError for a newer format by its name, and StorageError when the file is there and cannot be read.
    """
    text = read_file(path)
    if text is None:
        return None
    name, _, newest = form.partition("/")
    try:
        kept = json.loads(text)
        if not isinstance(kept, dict):
            raise ValueError("it is no JSON object")
        there, _, said = str(kept.pop("format", form)).partition("/")
        if there != name or not said.isdecimal():
            raise ValueError(f"its format is not '{form}'")
        if int(said) <= int(newest):
            return record_from(kind, kept)
    except (ValueError, RecursionError, ConfigError) as error:
        raise Damaged(f"{path} is damaged ({error}): {advice}") from None
    raise ConfigError(
        f"{path} is of format '{name}/{said}', and this edgemeta knows up to '{form}': install a newer one"
    )
