"""What a run does when its disk has lost something, or will not say: nothing is dropped that may come back."""

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgemeta.config import config_from
from edgemeta.errors import StorageError
from edgemeta.fed.client import Update
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory, write_parts
from edgemeta.fed.messages import encode_evaluation, encode_update
from edgemeta.fed.plan import Plan, resolve
from edgemeta.fed.refusal import Refused
from edgemeta.nn import Dense, Model
from edgemeta.nn.files import load_parameters

pytestmark = pytest.mark.board

NETWORK = Model([Dense(2)], (3,))  # 8 parameters
SCORES = {"loss": 1.0, "accuracy": 0.5}
EVALUATION = encode_evaluation({"samples": 4, "before": SCORES, "after": SCORES, "grid": []})


class Run:
    """Three participants, past the evaluation of the start."""

    def __init__(self, path: Path, rounds: int = 2, every: int = 100) -> None:
        settings = {
            "data": {"participants": 3},
            "phases": [{"rounds": rounds}],
            "server": {"round_deadline_s": 60},
            "evaluation": {"every": every},
        }
        self.path, self.config = path, resolve(config_from(settings), (3,), ("a", "b"), NETWORK)
        self.open()
        for k in range(3):
            self.state.deliver_evaluation(k, 0, EVALUATION, 0.0)

    def open(self) -> None:
        self.directory = RunDirectory(self.path, self.config)
        self.state = Coordinator(Plan(self.config), NETWORK, np.zeros(8, np.float32), self.directory, range(3), 0.0)

    def reopen(self) -> None:
        self.directory.close()
        self.open()

    def update(self, k: int, value: float, number: int = 1, now: float = 1.0) -> None:
        file = self.path / f"upload-{k}"
        update = Update({"theta": np.full(8, value, np.float32)}, {}, 10, 0.5, 2)
        write_parts(file, encode_update(update, number, NETWORK.layout.fingerprint))
        self.state.deliver(k, number, file, now)

    def kept(self, k: int, number: int = 1) -> Path:
        return self.path / "rounds" / f"{number:06d}" / f"update-{k:06d}.safetensors"

    @property
    def theta(self) -> list[float]:
        return load_parameters(self.directory.model_path).theta.tolist()

    @property
    def rounds(self) -> list[int]:
        return [record["round"] for record in self.directory.history()]


@pytest.fixture
def run(tmp_path):
    """Return a function that starts a run; its directory is closed at the end."""
    runs = []

    def start(**settings):
        runs.append(Run(tmp_path / "run", **settings))
        return runs[-1]

    yield start
    for one in runs:
        one.directory.close()


@contextmanager
def failing(operation, number, where):
    """Have an operation fail on files whose path has `where` in it."""
    original = getattr(os, operation)

    def failed(what, *rest, **how):
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        if how.get("dir_fd") is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{how['dir_fd']}"), path)
        if where in path:
            raise OSError(number, os.strerror(number))
        return original(what, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, operation, failed)
        yield


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", ["open", "preadv"])
def test_an_update_that_cannot_be_read_is_neither_refused_nor_dropped(run, operation, number):
    one = run(rounds=1)
    one.update(0, 1.0)
    with failing(operation, number, "upload-1"), pytest.raises(StorageError, match=os.strerror(number)):
        one.update(1, 2.0)
    one.update(1, 2.0)  # the same upload, sent again
    one.directory.close()
    with failing(operation, number, "update-000000"), pytest.raises(StorageError, match=os.strerror(number)):
        one.open()
    assert one.kept(0).exists()
    one.reopen()
    assert one.state.missing == [2]
    with failing(operation, number, "update-000000"), pytest.raises(StorageError):
        one.update(2, 6.0)  # accepted, and the round cannot be closed yet
    one.state.tick(2.0)
    assert one.theta == [3.0] * 8


def test_scores_that_cannot_be_read_are_kept(run):
    one = run(rounds=1)
    for k in range(3):
        one.update(k, 1.0)
    one.state.deliver_evaluation(0, 1, EVALUATION, 2.0)
    one.directory.close()
    with failing("read", errno.EIO, "evaluation-000000"), pytest.raises(StorageError):
        one.open()
    one.reopen()
    assert one.state.missing == [1, 2]


@pytest.mark.parametrize("reopened", [True, False])
def test_what_a_card_has_lost_is_set_aside_and_asked_for_again(run, caplog, reopened):
    one = run(rounds=1)
    for k in range(2):
        one.update(k, float(k))
    content = one.kept(1).read_bytes()
    one.kept(1).write_bytes(content[:-1])
    if reopened:
        one.reopen()
    else:
        one.update(2, 5.0)
        assert one.rounds == [0]
    aside = one.kept(1).with_name(one.kept(1).name + ".damaged")
    assert aside.read_bytes() == content[:-1]
    assert f"{aside.name}" in caplog.text
    assert 1 in one.state.missing
    assert one.state.work(1, 2.0).kind == "train"
    one.update(1, 1.0)
    if reopened:
        one.update(2, 5.0)
    assert one.theta == [2.0] * 8
    assert aside.exists()


def test_a_model_that_is_damaged_is_no_update_that_is(run):
    one = run(rounds=1)
    model = one.path / "rounds" / "000000" / "model.safetensors"
    for k in range(2):
        one.update(k, 1.0)
    shutil.copy(model, one.path / "copy")
    model.write_bytes(b"")
    with pytest.raises(StorageError, match="round 1 cannot be closed"):
        one.update(2, 1.0)
    os.replace(one.path / "copy", model)
    one.state.tick(2.0)
    assert one.theta == [1.0] * 8


def test_nothing_comes_into_a_round_whose_end_may_be_on_disk_already(run, monkeypatch):
    """The commit is renamed into its place, and then the flush of its folder fails: nobody knows what a cut leaves."""
    one = run(rounds=2)
    one.update(0, 1.0)
    one.update(1, 3.0)
    fsync, renamed = os.fsync, []

    def ill(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(one.path) and one.path.joinpath("history.jsonl").exists():
            renamed.append(json.loads((one.path / "progress.json").read_text())["round"])
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", ill)
        with pytest.raises(StorageError):
            one.state.tick(61.0)
        assert renamed[-1] == 2  # on disk the round is over, with two updates
        with pytest.raises(StorageError, match="being closed"):
            one.update(2, 100.0, now=62.0)
        assert not one.kept(2).exists()
    one.state.tick(63.0)
    with pytest.raises(Refused, match="not open"):
        one.update(2, 100.0, now=64.0)
    assert one.theta == [2.0] * 8
    assert one.rounds == [0, 1]


def test_a_model_that_cannot_be_published_stops_nothing_and_is_published_before_the_summary(run, monkeypatch, caplog):
    one = run(rounds=1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        for k in range(3):
            one.update(k, 1.0)
        assert "No space left on device; free some space" in caplog.text
        assert one.theta == [0.0] * 8
        for k in range(2):
            one.state.deliver_evaluation(k, 1, EVALUATION, 2.0)
        with pytest.raises(StorageError):
            one.state.deliver_evaluation(2, 1, EVALUATION, 2.0)
        assert one.state.finished
        assert one.directory.summary() is None
    one.state.tick(3.0)
    assert one.theta == [1.0] * 8
    assert one.directory.summary()["rounds"] == 1


@pytest.mark.parametrize(
    ("damage", "left", "kept"),
    [
        (lambda _: None, [], False),
        (lambda _: b"", [], False),
        (lambda data: data[: data.index(b"\n") + 1], [0], False),
        (lambda data: data[: data.index(b"\n") + 30], [0], True),
        (lambda data: bytes(40) + data[40:], [1], True),
        (lambda data: data + b'{"round": 2', [0, 1], False),  # not committed: of a cut
        (lambda data: data + bytes(1000), [0, 1], False),
    ],
    ids=["removed", "empty", "a record less", "torn", "zeros", "more", "more zeros"],
)
def test_a_history_that_lost_something_is_mended_and_the_run_ends(run, caplog, damage, left, kept):
    one = run(rounds=2)
    for k in range(3):
        one.update(k, 1.0)
    path = one.path / "history.jsonl"
    whole = path.read_bytes()
    found = damage(whole)
    path.unlink() if found is None else path.write_bytes(found)
    for _ in range(2):
        one.reopen()
        assert one.rounds == left
        assert ("lacks records of finished rounds" in caplog.text) == (left != [0, 1])
    aside = one.path / "history.jsonl.damaged"
    assert (aside.read_bytes() if kept else aside.exists()) == (found if kept else False)
    for k in range(3):
        one.update(k, 1.0, number=2)
    for k in range(3):
        one.state.deliver_evaluation(k, 2, EVALUATION, 3.0)
    assert one.rounds == [*left, 2]
    assert one.directory.summary()["rounds"] == 2


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda _: None, []),
        (lambda _: b"", []),
        (lambda data: data[: data.index(b"\n") + 1], [0]),
        (lambda data: data[:-9], [0]),
        (lambda data: bytes(9) + data, []),
        (lambda data: data + b"padded", [0, 1]),
    ],
    ids=["removed", "truncated", "a record less", "torn", "padded before", "padded behind"],
)
def test_a_history_that_somebody_changes_meanwhile_does_not_end_the_run(run, caplog, damage, left):
    one = run(rounds=3, every=2)
    for k in range(3):
        one.update(k, 1.0)
    path = one.path / "history.jsonl"
    found = damage(path.read_bytes())
    path.unlink() if found is None else path.write_bytes(found)
    before = one.state.progress
    for k in range(3):
        one.update(k, 1.0, number=2)
    for k in range(3):
        one.state.deliver_evaluation(k, 2, EVALUATION, 2.0)
    told = [record["round"] for record in one.directory.history(before.history)]
    assert [number for number in told if number >= before.round] == [2]
    assert one.rounds == [*left, 2]
    assert ("lacks records of finished rounds" in caplog.text) == (left != [0, 1])
    for k in range(3):
        one.update(k, 1.0, number=3)
    one.reopen()
    for k in range(3):
        one.state.deliver_evaluation(k, 3, EVALUATION, 3.0)
    assert one.rounds == [*left, 2, 3]
    assert one.directory.summary()["rounds"] == 3
    for line in path.read_bytes().splitlines():
        json.loads(line)


def test_the_history_of_a_repeated_round_is_not_made_longer_than_it_is(run):
    one = run(rounds=3)
    for number in (1, 2):
        for k in range(3):
            one.update(k, 1.0, number=number)
    (one.path / "history.jsonl").unlink()
    for k in range(2):
        one.state.diverged(k, 3, 2.0)
    assert one.state.progress.round == 2  # opened again, without one
    for k in one.state.missing:
        one.update(k, 1.0, number=2, now=3.0)
    assert one.rounds == [2]


def test_a_model_that_was_removed_is_made_again_from_the_published_one(run, caplog):
    one = run(rounds=2)
    for k in range(3):
        one.update(k, 1.0)
    theta = one.theta
    one.state.model_path.unlink()
    one.reopen()
    assert "is made again from" in caplog.text
    assert load_parameters(one.state.model_path).theta.tolist() == theta
    (one.path / "model.safetensors").unlink()
    one.reopen()
    assert one.theta == theta


def test_a_summary_that_is_damaged_is_made_again(run):
    one = run(rounds=1)
    for k in range(3):
        one.update(k, 1.0)
    for k in range(3):
        one.state.deliver_evaluation(k, 1, EVALUATION, 2.0)
    whole = one.directory.summary()
    (one.path / "summary.json").write_bytes(b"{")
    one.reopen()
    assert one.directory.summary() == whole
    assert (one.path / "summary.json.damaged").read_bytes() == b"{"


def test_what_is_not_collected_is_no_collected_file(run):
    one = run()
    one.update(0, 1.0)
    for name in ("update-000001.safetensors.tmp", "update-x.safetensors", "update-000002.json"):
        one.kept(0).with_name(name).write_bytes(b"")
    one.reopen()
    assert one.state.missing == [1, 2]
