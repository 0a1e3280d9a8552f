"""Folders that others may write: no link leads elsewhere, no owner changes, and modes are those that were said."""

import gc
import itertools
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import Disk, Killed, in_place_of_the_system
from inprocess import House, prepare

from edgemeta import disk
from edgemeta.errors import ConfigError, EdgemetaError, StorageError
from edgemeta.gateway.certificates import make_certificates
from edgemeta.gateway.enrolment import enroll_device, make_operator_token, tls_of
from edgemeta.gateway.tokens import DEVICES_FILE, Tokens
from edgemeta.link.joinfile import read_join_file
from edgemeta.reading import Reader, exists, read_file
from edgemeta.storage import append, lock, write_atomic, write_block

NOBODY = 65534
NOW = 1.8e9
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that nobody may be led to."""
    path = tmp_path / "shadow"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    return path


def untouched(secret: Path) -> bool:
    found = secret.stat()
    return (secret.read_bytes(), found.st_uid, stat.S_IMODE(found.st_mode)) == (b"secret", os.geteuid(), 0o600)


def test_where_a_folder_cannot_be_asked_for_in_one_step_it_is_walked_to(tmp_path: Path, monkeypatch: Any) -> None:
    own, deep = tmp_path / "own link", tmp_path / "a" / "b"
    disk.make_folder(deep)
    own.symlink_to(tmp_path / "a")
    assert disk._straight(deep, disk.WAY) is not None
    assert disk._straight(own / "b", disk.WAY) is None  # a link leads there
    monkeypatch.setattr(disk, "_straight", lambda *_: None)  # as without /proc
    write_atomic(own / "b" / "file", [b"x"])
    assert read_file(deep / "file") == b"x"


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path, secret: Path) -> None:
    for name, use in {
        "read": lambda path: read_file(path),
        "append": lambda path: append(path, b"x", 0),
        "lock": lambda path: lock(path),
        "folder": lambda path: disk.make_folder(path),
        "nowhere": lambda path: disk.make_folder(path),
    }.items():
        path = tmp_path / name
        path.symlink_to(tmp_path / "nowhere at all" if name == "nowhere" else tmp_path if name == "folder" else secret)
        with pytest.raises((StorageError, OSError), match="link"):
            use(path)
        assert exists(path)
        assert untouched(secret)
    assert not (tmp_path / "nowhere at all").exists()


def test_a_link_is_replaced_by_what_is_written_and_its_target_is_not(tmp_path: Path, secret: Path) -> None:
    for name in ("file", "file.tmp"):
        (tmp_path / name).symlink_to(secret)
    (tmp_path / "block").symlink_to(secret)
    write_atomic(tmp_path / "file", [b"new"], private=True)
    write_block(tmp_path / "block", b"new", None, last=True)
    for name in ("file", "block"):
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert untouched(secret)
    assert not (tmp_path / "file.tmp").is_symlink()


def test_the_blocks_of_a_file_go_into_the_one_that_was_made(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "file"
    made = write_block(path, b"one", None, last=False)
    assert write_block(path, b", two", made, last=False) == made
    path.rename(tmp_path / "moved")
    for plant in (lambda: path.symlink_to(secret), lambda: os.link(secret, path), lambda: path.write_bytes(b"")):
        plant()
        with pytest.raises(StorageError):
            write_block(path, b", three", made, last=True)
        path.unlink()
    assert untouched(secret)
    assert (tmp_path / "moved").read_bytes() == b"one, two"


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is no file"):
        Reader(tmp_path / "pipe")
    with pytest.raises(StorageError):
        append(tmp_path / "pipe", b"x", 0)


def test_ones_own_links_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "card" / "inside").mkdir(parents=True)
    (tmp_path / "near").symlink_to("card")
    (tmp_path / "far").symlink_to(tmp_path / "near" / "inside")
    write_atomic(tmp_path / "far" / "file", [b"x"])
    disk.make_folder(tmp_path / "near", named=True)
    disk.make_folder(tmp_path / "far" / "new" / "newer")
    assert read_file(tmp_path / "card" / "inside" / "file") == b"x"
    assert (tmp_path / "card" / "inside" / "new" / "newer").is_dir()
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(StorageError):
        read_file(tmp_path / "round" / "file")


@root_only
def test_another_users_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    os.chown(tmp_path / "state", NOBODY, NOBODY, follow_symlinks=False)
    for use in (
        lambda: write_atomic(tmp_path / "state" / "file", [b"x"]),
        lambda: disk.make_folder(tmp_path / "state", named=True),
        lambda: disk.make_folder(tmp_path / "state" / "tls"),
        lambda: make_operator_token(tmp_path / "state"),
    ):
        with pytest.raises((StorageError, OSError), match="another user"):
            use()
    assert not [*(tmp_path / "elsewhere").iterdir()]


@root_only
def test_what_root_makes_belongs_to_whom_the_folder_belongs_but_for_a_join_file(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    enroll_device(tmp_path / "state", "cam", "http://127.0.0.1:8742", None, tmp_path / "state", NOW)
    disk.make_folder(tmp_path / "state" / "rounds" / "000001")
    owners = {path.name: path.stat().st_uid for path in (tmp_path / "state").rglob("*")}
    assert owners == dict.fromkeys(owners, NOBODY) | {"cam.join": 0}
    assert {"devices.json", "devices.lock", "rounds", "000001"} < owners.keys()


@needs_openssl
@pytest.mark.parametrize("planted", ["tls", "tls/ca.pem", "tls/ca.key"])
def test_certificates_are_not_made_past_a_link(planted: str, tmp_path: Path, secret: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "state" / planted
    elsewhere.mkdir()
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere if planted == "tls" else secret)
    with pytest.raises(EdgemetaError, match="link"):
        make_certificates(tmp_path / "state" / "tls", ["gateway.local"], NOW)
    assert untouched(secret)
    assert not [*elsewhere.iterdir()]


@needs_openssl
def test_certificates_take_the_place_of_links(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("ca.key.tmp", "gateway.pem", "gateway.pem.tmp"):
        (folder / name).symlink_to(secret)
    make_certificates(folder, ["gateway.local"], NOW)
    assert untouched(secret)
    assert {path.name: path.is_symlink() for path in folder.iterdir()} == {
        "ca.key": False,
        "ca.pem": False,
        "gateway.pem": False,
    }


@needs_openssl
def test_a_gateway_takes_no_certificate_from_past_a_link(tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", ["gateway.local"], NOW)
    (tmp_path / "state" / "tls").mkdir(parents=True)
    (tmp_path / "state" / "tls" / "gateway.pem").symlink_to(tmp_path / "other" / "gateway.pem")
    with pytest.raises(EdgemetaError, match="link"):
        tls_of(tmp_path / "state", None, None)
    assert tls_of(tmp_path / "state", tmp_path / "state" / "tls" / "gateway.pem", None)  # the user's own word


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))}


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, tmp_path)
    found = []
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            with in_place_of_the_system(Disk()) as mine:
                House(Path(f"{umask}"), mine).go()
            enroll_device(Path(f"{umask}/gateway"), "cam", "http://127.0.0.1:1", None, Path(f"{umask}/gateway"), NOW)
        finally:
            os.umask(before)
        found.append(modes(Path(f"{umask}")))
    assert found[0] == found[1]
    assert set(found[0].values()) == {0o600, 0o644, 0o700, 0o755}
    private = {path for path, mode in found[0].items() if not mode & 0o077}
    secrets = {"device.json", "lock", "devices.json", "devices.lock", "cam.join", "private-000002.safetensors"}
    assert {Path(path).name for path in private} >= secrets | {"incoming"}


def test_whoever_reads_a_lock_that_is_left_over_cannot_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o644)
    held = lock(path)
    assert held is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lock(path) is None
    os.close(held)
    again = lock(path)
    assert again is not None
    os.close(again)


def test_a_command_waits_for_another_one_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_operator_token(tmp_path)
    held = lock(tmp_path / "devices.lock")
    assert held is not None
    threading.Timer(0.1, os.close, [held]).start()
    began = time.monotonic()
    token = make_operator_token(tmp_path)
    assert time.monotonic() - began >= 0.1
    assert Tokens(tmp_path / DEVICES_FILE).is_operators(token)
    held = lock(tmp_path / "devices.lock")
    assert held is not None
    monkeypatch.setattr("edgemeta.storage.LOCK_TRIES", 2)
    with pytest.raises(StorageError, match=r"another process has held .*devices\.lock"):
        make_operator_token(tmp_path)
    os.close(held)


def killed_at_each(work: Callable[[Path], object], folder: Path) -> Iterator[Path]:
    """Kill `work` at each of its operations in turn, in a new folder each time, and yield what that leaves."""
    for at in itertools.count(1):
        place = folder / f"{at}"
        place.mkdir()
        with in_place_of_the_system(Disk(at, "kill")):
            try:
                work(place)
                assert at > 20
                return
            except Killed:
                pass
        gc.collect()  # as its end would, before anything else is open
        yield place


def test_a_killed_enrolment_leaves_nothing_half(tmp_path: Path) -> None:
    def work(state: Path) -> object:
        return enroll_device(state, "cam", "http://127.0.0.1:8742", None, state, NOW)

    whole = 0
    for state in killed_at_each(work, tmp_path):
        file = state / "cam.join"
        if file.exists():  # announced or not, it is one to take part with
            assert Tokens(state / DEVICES_FILE).owner(read_join_file(file).token) == "cam"
            file.unlink()
            whole += 1
        work(state)
        assert Tokens(state / DEVICES_FILE).owner(read_join_file(file).token) == "cam"
        assert {path.name for path in state.iterdir()} == {"cam.join", "devices.json", "devices.lock"}
    assert whole > 1


@needs_openssl
def test_killed_certificates_leave_nothing_half(tmp_path: Path) -> None:
    def work(state: Path) -> object:
        return make_certificates(state / "tls", ["gateway.local"], NOW)

    for number, state in enumerate(killed_at_each(work, tmp_path)):
        if number % 6 == 0:  # openssl takes its time
            work(state)
            made = enroll_device(state, "cam", None, None, state, NOW)  # which has gateway and device shake hands
            assert made.url == "https://gateway.local:8742"
            assert {path.name for path in (state / "tls").iterdir()} == {"ca.key", "ca.pem", "gateway.pem"}


def test_an_authority_without_its_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_text("an authority")
    with pytest.raises(ConfigError, match=r"ca\.key is missing"):
        make_certificates(tmp_path / "tls", ["gateway.local"], NOW)
    assert (tmp_path / "tls" / "ca.pem").read_text() == "an authority"
