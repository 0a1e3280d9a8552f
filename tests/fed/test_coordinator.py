"""The round's rules, by messages and a clock that the test turns."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgemeta.config import config_from
from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.client import Update
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory, write_parts
from edgemeta.fed.messages import encode_evaluation, encode_update
from edgemeta.fed.plan import Plan, resolve
from edgemeta.fed.refusal import Refused
from edgemeta.nn import Dense, Model
from edgemeta.nn.files import load_parameters

pytestmark = pytest.mark.board

NETWORK = Model([Dense(2)], (3,))  # 3 * 2 weights + 2 biases: 8 parameters
SCORES = {"loss": 1.0, "accuracy": 0.5}


class Gateway:
    """A run of `participants`, the last `held_out` of them new, and messages to it that are short to write."""

    def __init__(self, path, participants=3, held_out=0, rounds=2, every=100, roster=None, now=0.0, **server):
        settings = {
            "data": {"participants": participants, "held_out": held_out},
            "phases": [{"rounds": rounds, "name": "federated"}],
            "server": {"round_deadline_s": 60, **server},
            "evaluation": {"every": every},
        }
        self.path, self.config = path, resolve(config_from(settings), (3,), ("a", "b"), NETWORK)
        self.open(range(participants) if roster is None else roster, now)

    def open(self, roster, now=0.0):
        self.directory = RunDirectory(self.path, self.config)
        theta = np.zeros(NETWORK.layout.size, np.float32)
        self.state = Coordinator(Plan(self.config), NETWORK, theta, self.directory, roster, now)

    def reopen(self, roster=(0, 1, 2), now=0.0):
        self.directory.close()
        self.open(roster, now)

    def update(self, k, value=1.0, round_number=1, samples=10, now=1.0, layout=None, loss=0.5):
        delta = np.full(NETWORK.layout.size, value, np.float32)
        file = self.path / f"incoming-{k}"
        update = Update({"theta": delta}, {}, samples, loss, 2)
        write_parts(file, encode_update(update, round_number, layout or NETWORK.layout.fingerprint))
        self.state.deliver(k, round_number, file, now)

    def scores(self, k, round_number=0, now=1.0, accuracy=0.5):
        scored = {"loss": 1.0, "accuracy": accuracy}
        body = encode_evaluation({"samples": 4, "before": SCORES, "after": scored, "grid": []})
        self.state.deliver_evaluation(k, round_number, body, now)

    def start(self, now=1.0):
        """Go past the evaluation of the start."""
        for k in list(self.state.roster):
            assert self.state.work(k, now).kind == "evaluate"
        for k in list(self.state.roster):
            self.scores(k, now=now)

    @property
    def theta(self):
        return load_parameters(self.directory.model_path).theta

    @property
    def history(self):
        return self.directory.history()


@pytest.fixture
def run(tmp_path):
    """Return a function that starts a run in a folder of the test's own; all are closed at the end."""
    opened = []

    def start(name="run", **settings):
        opened.append(Gateway(tmp_path / name, **settings))
        return opened[-1]

    yield start
    for gateway in opened:
        gateway.directory.close()


def test_a_run_from_start_to_end(run):
    gateway = run()
    gateway.start()
    task = gateway.state.work(0, 2.0)
    assert (task.kind, task.round, task.participant, task.counted) == ("train", 1, 0, 0)
    gateway.update(0, 4.0, samples=10)
    assert gateway.state.work(0, 2.0) is None
    gateway.update(1, 8.0, samples=30)
    gateway.update(2, 0.0, samples=40)
    # 10/80 * 4 + 30/80 * 8 = 3.5
    assert gateway.theta.tolist() == [3.5] * 8
    assert gateway.state.work(0, 2.0).counted == 1
    for k in range(3):
        gateway.update(k, 1.0, round_number=2)
    for k in range(3):
        gateway.scores(k, 2, accuracy=k / 2)
    assert gateway.state.finished
    assert gateway.theta.tolist() == [4.5] * 8
    assert [record["round"] for record in gateway.history] == [0, 1, 2]
    assert gateway.history[1]["train_loss"] == 0.5
    assert gateway.history[1]["gradient_evaluations"] == 6
    assert gateway.history[2]["evaluation"]["after"]["accuracy"] == {"mean": 0.5, "p10": 0.1, "p50": 0.5, "p90": 0.9}
    assert gateway.directory.summary()["rounds"] == 2


def test_arrival_order_changes_nothing(run):
    thetas = []
    for order in ([0, 1, 2], [2, 0, 1]):
        gateway = run(str(order), rounds=1)
        gateway.start()
        for k in order:
            gateway.update(k, 0.1 * (k + 1) ** 7, samples=3 + k)
        thetas.append(gateway.theta)
    assert np.array_equal(*thetas)


def test_nothing_opens_before_there_are_enough(run):
    gateway = run(roster=[0, 1])
    assert gateway.state.work(0, 0.0) is None
    gateway.state.tick(1000.0)
    assert gateway.state.work(0, 1000.0) is None
    gateway.state.join(2)
    assert gateway.state.work(0, 1001.0).kind == "evaluate"
    assert gateway.state.seconds_left(1001.0) == 60


def test_a_repeated_update_is_acknowledged_and_counted_once(run):
    gateway = run(rounds=1)
    gateway.start()
    gateway.update(0, 1.0)
    gateway.update(0, 100.0)
    gateway.update(1, 1.0)
    gateway.update(2, 1.0)
    gateway.update(0, 100.0)  # its round is over, and it counted: the answer was lost, not the update
    assert gateway.theta.tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round_number": 2}, "wrong-round"),
        ({"layout": "0" * 16}, "wrong-layout"),
        ({"value": np.nan}, "not-finite"),
        ({"value": np.inf}, "not-finite"),
        ({"samples": 0}, "bad-samples"),
        ({"samples": -5}, "bad-samples"),
        ({"samples": 10**12}, "bad-samples"),
        ({"k": 7}, "not-in-cohort"),
    ],
)
def test_what_is_refused(run, change, reason):
    gateway = run()
    gateway.start()
    with pytest.raises(Refused) as refused:
        gateway.update(**{"k": 0, **change})
    assert refused.value.reason == reason
    gateway.update(0)  # and the right one is still welcome


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"metrics": 3}',
        b"[" * 100_000,
        json.dumps({"metrics": {"samples": 1, "before": {"loss": 1}, "after": {}, "grid": []}}).encode(),
        json.dumps({"metrics": {"samples": True, "before": SCORES, "after": SCORES, "grid": []}}).encode(),
        json.dumps({"metrics": {"samples": 1, "before": SCORES, "after": {"loss": float("nan")}, "grid": []}}).encode(),
        json.dumps({"metrics": {"samples": 1, "before": SCORES, "after": SCORES, "grid": [SCORES]}}).encode(),
        b'{"metrics": {"samples": 1, "before": {"loss": 1' + b"0" * 400 + b'}, "after": {"loss": 1}, "grid": []}}',
    ],
)
def test_scores_that_are_none_are_refused(run, body):
    gateway = run()
    gateway.state.work(0, 0.0)
    with pytest.raises(Refused, match="expected"):
        gateway.state.deliver_evaluation(0, 0, body, 1.0)


def test_at_the_deadline_a_round_closes_with_enough(run):
    gateway = run(min_fit_clients=2)
    gateway.start(now=1.0)
    gateway.update(0)
    gateway.update(2)
    gateway.state.tick(60.9)
    assert gateway.state.progress.round == 1
    gateway.state.tick(61.0)
    assert gateway.state.progress.round == 2
    assert gateway.history[1]["participants"] == 2
    assert gateway.history[1]["failures"] == 1
    with pytest.raises(Refused) as late:
        gateway.update(1, round_number=1, now=62.0)
    assert late.value.reason == "wrong-round"


def test_too_few_at_the_deadline_open_the_round_again(run, caplog):
    gateway = run(min_fit_clients=2)
    gateway.start(now=1.0)
    gateway.update(0, 3.0)
    gateway.state.tick(61.0)
    assert gateway.state.progress.round == 1
    assert "missing: 1, 2" in caplog.text
    assert gateway.state.work(0, 62.0) is None  # what it delivered is kept
    gateway.update(1, 5.0, now=63.0)
    gateway.state.tick(200.0)
    assert gateway.theta.tolist() == [4.0] * 8


def test_a_device_that_is_gone_stalls_one_round_and_no_more(run):
    gateway = run(rounds=5, min_fit_clients=2)
    gateway.start(now=1.0)
    gateway.update(0)
    gateway.update(1)
    gateway.state.tick(61.0)
    assert gateway.state.progress.cohort == [0, 1]
    gateway.update(0, round_number=2, now=62.0)
    gateway.update(1, round_number=2, now=62.0)  # round 2 needs no deadline
    assert gateway.state.progress.round == 3
    assert gateway.state.work(2, 63.0) is None  # it is back, for the round after this one
    gateway.update(0, round_number=3, now=64.0)
    gateway.update(1, round_number=3, now=64.0)
    assert gateway.state.progress.cohort == [0, 1, 2]


def test_a_held_out_device_that_is_away_is_named_and_waited_for_once(run):
    gateway = run(participants=3, held_out=1, roster=[0, 1], every=1)
    for k in (0, 1):
        gateway.state.work(k, 0.0)
        gateway.scores(k)
    assert gateway.state.progress.stage == "evaluate"
    gateway.state.tick(60.0)
    assert gateway.history[0]["evaluation_missing"] == [2]
    assert "evaluation_new" not in gateway.history[0]
    gateway.update(0, now=61.0)
    gateway.update(1, now=61.0)
    assert gateway.state.progress.cohort == [0, 1]
    gateway.state.join(2)  # now it comes: from the next evaluation on it is asked
    for k in (0, 1):
        gateway.scores(k, 1)
    for k in (0, 1):
        gateway.update(k, round_number=2)
    assert gateway.state.progress.cohort == [0, 1, 2]


def test_held_out_devices_never_train(run):
    gateway = run(participants=3, held_out=1)
    gateway.start()
    assert gateway.state.work(2, 2.0) is None
    with pytest.raises(Refused) as refused:
        gateway.update(2)
    assert refused.value.reason == "not-in-cohort"


def test_a_fraction_is_drawn_anew_each_round_and_the_same_for_the_same_seed(run):
    cohorts = []
    for name in "ab":
        gateway = run(name, participants=20, rounds=3, fraction_fit=0.25)
        gateway.start()
        for round_number in (1, 2, 3):
            cohorts.append(gateway.state.progress.cohort)
            assert len(cohorts[-1]) == 5
            for k in cohorts[-1]:
                gateway.update(k, round_number=round_number)
    assert cohorts[:3] == cohorts[3:]
    assert len({tuple(cohort) for cohort in cohorts[:3]}) == 3


def similar(gateway, first, last, reopened=False):
    """Let rounds pass in which participants of even and of odd numbers move apart, and return their cohorts."""
    cohorts = []
    for number in range(first, last + 1):
        if reopened:
            gateway.reopen(gateway.state.roster)
        cohorts.append(gateway.state.progress.cohort)
        for k in cohorts[-1]:
            gateway.update(k, 1.0 if k % 2 else -1.0, number)
    return cohorts


@pytest.fixture
def alike(run):
    """Return a run of four, and others that are not there yet; a round asks half of those who are there."""

    def start(name="run"):
        server = {"selection": "similar", "fraction_fit": 0.5, "min_available_clients": 4}
        gateway = run(name, participants=8, rounds=50, roster=range(4), **server)
        gateway.start()
        return gateway

    return start


def test_similar_participants_train_together_and_both_kinds_have_their_turns_through_kills(alike):
    cohorts = similar(alike(), 1, 9)
    seen = {k for cohort in cohorts[:4] for k in cohort}
    assert seen == set(range(4))  # so all are known then
    assert {tuple(cohort) for cohort in cohorts[4:]} == {(0, 2), (1, 3)}
    assert similar(alike("killed"), 1, 9, reopened=True) == cohorts


def test_who_comes_late_has_its_turn_and_then_belongs_to_its_kind(alike):
    gateway = alike()
    similar(gateway, 1, 4)
    gateway.state.join(5)
    cohorts = similar(gateway, 5, 12)
    first = next(i for i, cohort in enumerate(cohorts) if 5 in cohort)
    assert first < 4  # two of three are asked, or two of two and itself: it misses few rounds
    assert {len({k % 2 for k in cohort}) for cohort in cohorts[first + 1 :]} == {1}
    assert any(5 in cohort for cohort in cohorts[first + 1 :])


def test_who_is_held_or_removed_is_not_asked_with_its_kind(alike):
    gateway = alike()
    gateway.state.join(4)
    gateway.state.join(5)
    similar(gateway, 1, 5)
    gateway.state.hold(0)
    gateway.state.remove(1, 1.0)
    cohorts = similar(gateway, gateway.state.progress.round, 10)[1:]  # the open one was drawn before
    assert {tuple(cohort) for cohort in cohorts} == {(2, 4), (3, 5)}
    gateway.state.join(1)  # another board has the number: what the first one was like says nothing of it
    assert 1 not in gateway.state.sketches
    cohorts = similar(gateway, 11, 15)
    assert any(1 in cohort for cohort in cohorts[1:])


def test_who_sleeps_is_known_by_what_it_sends_and_no_round_waits_for_it(alike):
    gateway = alike()
    similar(gateway, 1, 4)
    gateway.state.join(5)
    assert gateway.state.work(5, 1.0, wake_s=3600.0).round == 5
    similar(gateway, 5, 5)
    gateway.update(5, 1.0, round_number=5)  # counts in the sixth
    cohorts = similar(gateway, 6, 10)
    assert 5 not in {k for cohort in cohorts for k in cohort}
    sketches = gateway.state.sketches
    assert sketches[5] @ sketches[1] > 0.99 > -0.99 > sketches[5] @ sketches[2]


def test_opened_again_it_goes_on_with_what_it_had(run):
    gateway = run(rounds=1)
    gateway.state.work(0, 0.0)
    gateway.scores(0)
    gateway.reopen()
    gateway.scores(1)
    gateway.scores(2)
    gateway.update(0, 1.0)
    gateway.update(1, 2.0)
    gateway.reopen(now=500.0)
    assert gateway.state.work(0, 500.0) is None
    assert gateway.state.seconds_left(500.0) == 60
    gateway.update(2, 3.0, now=501.0)
    assert gateway.theta.tolist() == [2.0] * 8


def test_an_update_that_the_card_damaged_is_asked_for_again(run, caplog):
    gateway = run(rounds=1)
    gateway.start()
    gateway.update(0, 1.0)
    path = gateway.directory.update_path(1, 0)
    path.write_bytes(path.read_bytes()[:-8])
    gateway.reopen()
    assert "damaged" in caplog.text
    assert gateway.state.work(0, 2.0).kind == "train"


def test_a_record_whose_round_was_not_committed_does_not_count(run):
    gateway = run()
    gateway.start()
    with open(gateway.path / "history.jsonl", "ab") as file:
        file.write(b'{"round": 1}\n')  # written, and then the power went
    gateway.reopen()
    assert [record["round"] for record in gateway.history] == [0]


def test_a_record_is_written_once_however_often_the_commit_fails(run, monkeypatch):
    gateway = run()

    def full(*_):
        raise StorageError("full")

    with monkeypatch.context() as patch:
        gateway.state.work(0, 0.0)
        gateway.scores(0)
        gateway.scores(1)
        patch.setattr(RunDirectory, "commit", full)
        for now in (1.0, 2.0):
            with pytest.raises(StorageError):
                gateway.scores(2) if now == 1.0 else gateway.state.tick(now)
    gateway.state.tick(3.0)
    assert [record["round"] for record in gateway.history] == [0]


def test_a_damaged_directory_is_refused(run):
    gateway = run()
    (gateway.path / "progress.json").write_text("{")
    gateway.directory.close()
    with pytest.raises(ConfigError, match="damaged"):
        gateway.open([0])
    gateway.directory.close()


def test_a_directory_belongs_to_one_configuration_and_one_process(run):
    gateway = run(rounds=2)
    with pytest.raises(StorageError, match="wait for it, or give another folder"):
        RunDirectory(gateway.path, gateway.config)
    gateway.directory.close()
    with pytest.raises(ConfigError, match=r"phases\.0\.rounds: 2 and 3"):
        run(rounds=3)


def test_a_full_disk_loses_nothing(run, monkeypatch):
    gateway = run(rounds=1)
    gateway.start()
    gateway.update(0, 1.0)
    gateway.update(1, 2.0)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for broken in ("edgemeta.storage.os.fsync", "edgemeta.storage.os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, full)
            with pytest.raises(StorageError, match="No space left"):
                gateway.update(2, 3.0)
    gateway.update(2, 3.0)
    gateway.state.tick(5.0)
    assert gateway.theta.tolist() == [2.0] * 8
    for k in range(3):
        gateway.scores(k, 1)
    assert [record["round"] for record in gateway.history] == [0, 1]


def test_the_log_names_the_missing_as_people_call_them(run, caplog):
    gateway = run()
    gateway.start(now=1.0)
    gateway.state._name = {1: "kitchen-cam", 2: "yard-cam"}.__getitem__
    gateway.update(0)
    gateway.state.tick(61.0)
    assert "(missing: kitchen-cam, yard-cam)" in caplog.text


def test_the_quorum_counts_training_participants_only(run):
    gateway = run(participants=4, held_out=2, roster=[0, 2, 3], min_fit_clients=1)
    assert (gateway.state.joined, gateway.state.quorum) == ([0], 2)
    assert gateway.state.work(0, 0.0) is None
    gateway.state.join(1)
    assert gateway.state.work(0, 0.0).kind == "evaluate"


def test_the_history_can_be_read_from_where_one_was(run):
    gateway = run(rounds=3)
    gateway.start()
    seen = gateway.state.progress.history
    for number in (1, 2):
        for k in range(3):
            gateway.update(k, round_number=number)
    assert [record["round"] for record in gateway.directory.history(after=seen)] == [1, 2]
    assert gateway.directory.history(after=gateway.state.progress.history) == []


def test_a_new_rounds_folder_is_flushed_before_what_is_accepted_into_it(run, monkeypatch):
    gateway = run()
    gateway.start()
    flushed, fsync = [], os.fsync

    def flush(descriptor):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    gateway.update(0)
    assert flushed == ["rounds", "000001"]
