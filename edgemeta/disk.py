"""What gateway and device ask of the operating system's files: all of it passes here, and through `system`.

No link is followed that somebody else has put in the way. A path with links is walked from folder to folder, each
opened in the one before; a link on the way counts where root or this user owns it, and one in a file's place never. So
whoever may write in a folder cannot lead a more powerful program, such as `sudo edgemeta enroll`, to another file. What
is made has the mode that was said, whatever the umask, and belongs, where root makes it, to whom its folder belongs.

Everything raises OSError; `edgemeta.storage` has files that are old or new, and errors for people.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

system: Any = os  # tests put something in its place that counts, fails, keeps a record

_ASIDE = os.O_NOFOLLOW | os.O_CLOEXEC
WAY = os.O_PATH | os.O_DIRECTORY | _ASIDE  # a folder to go through: it need not be readable
FOLDER = os.O_RDONLY | os.O_DIRECTORY | _ASIDE  # one to list or to flush
_FILE = os.O_NONBLOCK | os.O_NOCTTY | _ASIDE  # a pipe in a file's place is not waited for
MOST_LINKS = 40
Made = tuple[int, int]  # device and number of a file
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)  # a stick's file system, say


def open_folder(path: Path, flags: int = FOLDER) -> int:
    """Return the descriptor of a folder, which may itself be such a link as is followed."""
    straight = _straight(path, flags)
    return _walk(path, flags) if straight is None else straight


def _straight(path: Path, flags: int) -> int | None:
    """Return the descriptor of a folder to which no link leads; None where one does, or that cannot be told.

    Most folders are such, and it is one step instead of many. It is also what an emulator understands that takes "/",
    asked for by itself, for the root of the files that it brings.
    """
    try:
        folder: int = system.open(path, flags)
    except OSError:
        return None  # the walk says why
    try:
        if system.readlink(f"/proc/self/fd/{folder}") == os.path.abspath(path):
            return folder
    except OSError:
        pass  # there is no /proc
    except BaseException:
        system.close(folder)
        raise
    system.close(folder)
    return None


def _walk(path: Path, flags: int) -> int:
    """Return the same, from folder to folder, each opened in the one before."""
    parts = [*reversed(path.parts)] or ["."]
    here: int | None = None
    links = 0
    try:
        while parts:
            part = parts.pop()
            try:
                there = system.open(part, WAY if parts else flags, dir_fd=here)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, "links lead to each other") from None
                parts += reversed(_target(part, here, error))
                continue
            if here is not None:
                system.close(here)
            here = there
    except BaseException:
        if here is not None:
            system.close(here)
        raise
    assert here is not None
    return here


def _target(name: str, folder: int | None, error: OSError) -> tuple[str, ...]:
    """Return where a link leads, as parts of a path; raises `error` when it is none, OSError when it is another's."""
    link = system.open(name, os.O_PATH | _ASIDE, dir_fd=folder)
    try:
        found = system.fstat(link)
        if not stat.S_ISLNK(found.st_mode):
            raise error
        if found.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "a link of another user is in the way, and is not followed")
        return Path(system.readlink("", dir_fd=link)).parts
    finally:
        system.close(link)


@contextmanager
def place(path: Path, flags: int = WAY) -> Iterator[tuple[int, str]]:
    """Give the descriptor of the folder that a path lies in, and the name there."""
    if "\0" in str(path):
        raise FileNotFoundError(errno.ENOENT, "no name has a null character")
    folder = open_folder(path.parent, flags)
    try:
        yield folder, path.name or "."
    finally:
        system.close(folder)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a file that is there; raises OSError for what is no file, a link too."""
    with place(path) as (folder, name):
        descriptor: int = system.open(name, flags | _FILE, dir_fd=folder)
    try:
        mode = system.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no file")
    except BaseException:
        system.close(descriptor)
        raise
    return descriptor


def identity(descriptor: int) -> Made:
    """Return what tells an open file from all others."""
    found = system.fstat(descriptor)
    return found.st_dev, found.st_ino


def open_again(path: Path, made: Made, flags: int) -> int:
    """Return the descriptor of a file that this process has made, in a step: what is not the same file is not used."""
    descriptor: int = system.open(path, flags | _FILE)
    if identity(descriptor) != made:
        system.close(descriptor)
        raise OSError(errno.ESTALE, "another file is in its place")
    return descriptor


def create(folder: int, name: str, mode: int, *, own: bool = False) -> int:
    """Return the descriptor of a new file, to be written; raises FileExistsError where there is something already.

    own: it is this user's own, whoever its folder belongs to.
    """
    descriptor: int = system.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=folder)
    try:
        _hand_over(descriptor, None if own else folder, mode)
    except BaseException:
        system.close(descriptor)
        raise
    return descriptor


def _hand_over(made: int, folder: int | None, mode: int) -> None:
    """Give what was just made its mode, and its folder's owner."""
    with suppress(PermissionError):  # a stick's file system keeps neither
        system.fchmod(made, mode)
        if folder is not None and os.geteuid() == 0:
            owner = system.fstat(folder)
            system.fchown(made, owner.st_uid, owner.st_gid)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, in as many goes as it takes."""
    left = memoryview(data).cast("B")
    while left:
        left = left[system.write(descriptor, left) :]


def look(path: Path) -> os.stat_result | None:
    """Return what is known of a file, folder or link, None where there is nothing: any other error is no absence."""
    try:
        with place(path) as (folder, name):
            found: os.stat_result = system.stat(name, dir_fd=folder, follow_symlinks=False)
            return found
    except (FileNotFoundError, NotADirectoryError):
        return None


def names(path: Path) -> list[str]:
    """Return the names in a folder, sorted."""
    folder = open_folder(path)
    try:
        return sorted(system.listdir(folder))
    finally:
        system.close(folder)


def rename(old: Path, new: Path) -> None:
    """Give a file another name, in the place of what has that name."""
    with place(old) as (there, name), place(new) as (here, final):
        system.replace(name, final, src_dir_fd=there, dst_dir_fd=here)


def link(old: Path, new: Path) -> bool:
    """Give a file a second name, and return whether files can have one here; raises FileExistsError where it is had."""
    with place(old) as (there, name), place(new) as (here, final):
        try:
            system.link(name, final, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a link, where there is one."""
    with suppress(FileNotFoundError), place(path) as (folder, name):
        system.unlink(name, dir_fd=folder)


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    with place(path) as (folder, name):
        system.rmdir(name, dir_fd=folder)


def flush_folder(folder: int) -> None:
    """Make what was made, renamed and removed in an open folder survive a power cut."""
    try:
        system.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot, and that flushes entries by itself
            raise


def sync_folder(path: Path) -> None:
    """Do the same for a folder by its path."""
    folder = open_folder(path)
    try:
        flush_folder(folder)
    finally:
        system.close(folder)


def make_folder(path: Path, mode: int = 0o755, *, named: bool = False) -> None:
    """Make a folder, and those above it that are missing, each flushed into the one that it lies in.

    One that is there keeps its mode, and is flushed too: a kill may have come between. named: by the user, who may have
    put a link there; anywhere else a link is refused.
    """
    found = look(path)
    if found is None:
        if look(path.parent) is None:
            make_folder(path.parent, named=True)
        _make(path, mode)
        return
    if not named and not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "expected a folder, and no link")
    system.close(open_folder(path, WAY))
    with suppress(PermissionError):  # the folder above is somebody else's, who has made this one
        sync_folder(path.parent)


def _make(path: Path, mode: int) -> None:
    """Make a folder under another name first: with its own it has its mode and its owner."""
    with place(path, FOLDER) as (folder, name):
        temporary = name + ".tmp"
        with suppress(FileNotFoundError):
            system.rmdir(temporary, dir_fd=folder)  # of a kill
        system.mkdir(temporary, 0o700, dir_fd=folder)
        made = system.open(temporary, FOLDER, dir_fd=folder)
        try:
            _hand_over(made, folder, mode)
        finally:
            system.close(made)
        system.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        flush_folder(folder)
