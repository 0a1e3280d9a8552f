"""Files that are either old or new."""

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemeta.errors import StorageError
from edgemeta.storage import lock, storing, write_atomic

pytestmark = pytest.mark.board


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ([b"new"], [b"a", memoryview(b"bc"), b""], []):
        write_atomic(path, content)
        assert path.read_bytes() == b"".join(content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_who_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, [b"old"])
    with open(path, "rb") as reader:
        write_atomic(path, [b"new"])
        assert (reader.read(), path.read_bytes()) == (b"old", b"new")


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names, **folders: (calls.append("replace"), replace(*names, **folders)))
    write_atomic(tmp_path / "file", [b"new"])
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted())
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("name", ["folder", "file/inside", "missing/inside", "folder/..", "."])
def test_where_nothing_can_be_written_the_message_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    path = tmp_path / name
    with pytest.raises(StorageError, match=r"cannot write .*give a folder that can be written") as caught:
        write_atomic(path, [b"new"])
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 2
    assert sorted(str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_the_root_folder_is_no_file() -> None:
    with pytest.raises(StorageError):
        write_atomic(Path("/"), [b"new"])


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        write_atomic(disk / "file", [b"old"])
        with pytest.raises(StorageError, match="No space left on device; free some space"):
            write_atomic(disk / "file", [bytes(1 << 20)])
        assert [(entry.name, entry.read_bytes()) for entry in disk.iterdir()] == [("file", b"old")]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_only_the_operating_systems_errors_are_turned() -> None:
    with pytest.raises(ZeroDivisionError), storing(Path("file")):
        _ = 1 / 0
    with pytest.raises(StorageError, match="cannot write file: Permission denied"), storing(Path("file")):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_as_such(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unable)
    with pytest.raises(StorageError, match=r"the file system of .* has no locks .*: give a folder on another"):
        lock(tmp_path / "lock")
    monkeypatch.undo()
    held = lock(tmp_path / "lock")
    assert held is not None
    os.close(held)
