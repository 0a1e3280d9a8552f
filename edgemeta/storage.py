"""Files that are either old or new after a power cut, never half of each."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemeta.errors import ConfigError, StorageError
from edgemeta.records import Record, record_from


class Damaged(ConfigError):
    """A file that a program keeps for itself is not what it wrote."""


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


def write_atomic(path: Path, parts: Iterable[bytes | memoryview], *, private: bool = False) -> None:
    """Write `parts` to a temporary file beside `path`, flush it to the disk, and rename it over `path`.

    private: nobody but the owner may read it. Raises StorageError; then `path` is as it was.
    """
    temporary = path.parent / (path.name + ".tmp")
    with storing(path):
        try:
            with open(temporary, "wb", opener=_owners_only if private else None) as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too leaves nothing behind
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


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
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; let this user read it") from error
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


def _owners_only(path: str, flags: int) -> int:
    """Open a file that is secret from its first byte on; root leaves it to whoever the folder belongs to."""
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # it may be left over, with another mode
        if os.geteuid() == 0:  # as in `sudo edgemeta enroll` beside a gateway that runs as its own user
            folder = os.stat(os.path.dirname(path) or ".")
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
