"""What one participant cannot do to a run: spoil the model, or make the others wait."""

import json

import numpy as np
import pytest
from test_coordinator import NETWORK, SCORES, Gateway

from edgemeta.fed.client import Update
from edgemeta.fed.messages import encode_evaluation, encode_update
from edgemeta.fed.refusal import Refused

SIZE = NETWORK.layout.size


@pytest.fixture
def run(tmp_path):
    opened = []

    def start(name="run", **settings):
        opened.append(Gateway(tmp_path / name, **settings))
        opened[-1].start()
        return opened[-1]

    yield start
    for gateway in opened:
        gateway.directory.close()


def rounds(gateway, first, last, hostile=None, value=1e30):
    """Let everyone who is asked deliver; the others than `hostile` move each number by 1."""
    for number in range(first, last + 1):
        for k in gateway.state.progress.cohort:
            gateway.update(k, value if k == hostile else 1.0, round_number=number)


@pytest.mark.parametrize("value", [1e30, 3.4e38, -3.4e38])
def test_one_huge_update_moves_the_model_five_usual_steps_and_three_put_its_sender_aside(run, value):
    gateway = run(participants=4, rounds=8)
    rounds(gateway, 1, 1, hostile=3, value=value)
    # Each number: three steps of 1, and one cut down to 5 times the median norm, which is sqrt(8): so 5.
    moved = (3 + np.sign(value) * 5) / 4
    np.testing.assert_allclose(gateway.theta, moved, rtol=1e-6)
    assert gateway.history[-1]["clipped"] == [3]
    assert gateway.state.progress.strikes == {"3": 1}
    rounds(gateway, 2, 3, hostile=3, value=value)
    assert gateway.state.standing.held == {3}
    assert gateway.state.progress.cohort == [0, 1, 2]
    assert gateway.state.work(3, 2.0) is None
    gateway.reopen(roster=range(4))
    assert gateway.state.standing.held == {3}
    rounds(gateway, 4, 5)
    assert "clipped" not in gateway.history[-1]
    gateway.state.release(3)
    gateway.reopen(roster=range(4))
    rounds(gateway, 6, 6)
    assert gateway.state.progress.cohort == [0, 1, 2, 3]


def test_where_not_enough_can_be_had_without_them_the_round_is_opened_again(run):
    gateway = run(participants=2, rounds=3, min_fit_clients=2, clip="off")
    rounds(gateway, 1, 1, hostile=1, value=3.4e38)  # the mean of 1 and 3.4e38 is finite
    gateway.update(0, 3.4e38, round_number=2)
    gateway.update(1, 3.4e38, round_number=2)
    assert gateway.state.progress.round == 2
    assert gateway.state.progress.attempt == 1
    assert np.isfinite(gateway.theta).all()
    gateway.reopen(roster=range(2))
    assert gateway.state.missing == [0]  # the larger one's; of equal ones the first
    gateway.update(0, -1.0, round_number=2)
    assert gateway.state.progress.round == 3
    assert np.isfinite(gateway.theta).all()


def test_whose_update_overflows_is_left_out_and_the_round_closes_with_the_others(run):
    gateway = run(participants=3, rounds=3, clip="off", min_fit_clients=2)
    gateway.update(0, 3.0e38)
    gateway.update(1, 3.0e38)
    gateway.update(2, 3.0e38)
    assert np.isfinite(gateway.theta).all()
    gateway.update(0, 1.0, round_number=2)
    gateway.update(1, 1.0, round_number=2)
    gateway.update(2, 3.4e38, round_number=2)  # (1 + 1 + 3.4e38) / 3 and 3e38 are too much together
    assert gateway.history[-1]["left_out"] == [2]
    assert gateway.history[-1]["participants"] == 2
    assert gateway.history[-1]["failures"] == 1
    assert gateway.state.progress.counted == {"0": 2, "1": 2, "2": 1}
    assert np.isfinite(gateway.theta).all()


def test_who_is_refused_is_not_waited_for(run):
    gateway = run(participants=3, rounds=2)
    gateway.update(0)
    gateway.update(1)
    with pytest.raises(Refused) as refused:
        gateway.update(2, np.nan)
    assert refused.value.reason == "not-finite"
    assert gateway.history[-1]["round"] == 1
    assert (gateway.history[-1]["participants"], gateway.history[-1]["failures"]) == (2, 1)
    assert gateway.state.progress.strikes == {"2": 1}


def test_alone_it_may_send_another_one(run):
    gateway = run(participants=1, rounds=2, roster=[0])
    with pytest.raises(Refused):
        gateway.update(0, np.inf)
    assert gateway.state.work(0, 1.0).round == 1
    gateway.update(0, 2.0)
    assert gateway.state.progress.round == 2
    assert gateway.state.progress.strikes == {}


def test_scores_that_do_not_count_keep_nobody_waiting(run):
    gateway = run(participants=3, rounds=1)
    for k in range(3):
        gateway.update(k)
    gateway.scores(0, 1)
    gateway.scores(1, 1)
    body = json.loads(encode_evaluation({"samples": 4, "before": SCORES, "after": {}, "grid": []}))
    with pytest.raises(Refused):
        gateway.state.deliver_evaluation(2, 1, json.dumps(body).encode(), 1.0)
    assert gateway.state.finished
    assert gateway.history[-1]["evaluation_missing"] == [2]


def test_where_most_diverge_the_round_before_is_repeated_without_the_largest_update(run):
    gateway = run(participants=4, rounds=5)
    rounds(gateway, 1, 1)
    before = gateway.theta.copy()
    rounds(gateway, 2, 2, hostile=2, value=4.0)  # not far enough to be cut down
    assert gateway.state.progress.counted == {"0": 2, "1": 2, "2": 2, "3": 2}
    for k in (0, 1):
        gateway.state.diverged(k, 3, 2.0)
        assert gateway.state.work(k, 2.0) is None  # it would only diverge again
    assert gateway.state.progress.round == 3
    gateway.update(2, 1.0, round_number=3)
    gateway.state.diverged(3, 3, 2.0)
    progress = gateway.state.progress
    assert (progress.round, progress.cohort, progress.counted) == (2, [0, 1, 3], {"0": 1, "1": 1, "2": 1, "3": 1})
    assert progress.strikes == {"2": 1}
    assert gateway.theta.tobytes() == before.tobytes()
    assert [record["round"] for record in gateway.history] == [0, 1]
    gateway.reopen(roster=range(4))
    assert gateway.state.work(2, 3.0) is None
    rounds(gateway, 2, 2)
    assert gateway.theta.tolist() == [2.0] * SIZE
    assert [record["round"] for record in gateway.history] == [0, 1, 2]
    assert gateway.state.progress.cohort == [0, 1, 2, 3]  # and what it sent for round 3 is no update of this round 3
    assert sorted(gateway.state.missing) == [0, 1, 2, 3]
    rounds(gateway, 3, 5)
    for k in range(4):
        gateway.scores(k, 5)
    assert gateway.state.finished


def test_what_diverges_at_once_is_said_and_repeated_once_only(run, caplog):
    gateway = run(participants=2, rounds=3)
    for k in range(2):
        gateway.state.diverged(k, 1, 2.0)
    assert "lower lr" in caplog.text
    assert gateway.state.progress.round == 1
    gateway.state.tick(100.0)  # the deadline: opened again, and everyone is asked again
    assert gateway.state.work(0, 100.0).round == 1


@pytest.mark.parametrize("loss", [1.7e308, -1.7e308])
def test_history_is_json_whatever_finite_loss_is_reported(run, loss):
    gateway = run(participants=2, rounds=2)
    for k in range(2):
        gateway.update(k, loss=loss, samples=10**9)
    with open(gateway.path / "history.jsonl") as file:
        last = [json.loads(line, parse_constant=pytest.fail) for line in file][-1]
    assert abs(last["train_loss"]) == 1e6


def test_who_holds_up_is_held_and_released_by_hand(run):
    gateway = run(participants=3, rounds=4)
    gateway.state.hold(1)
    rounds(gateway, 1, 1)
    assert gateway.state.progress.cohort == [0, 2]
    gateway.reopen(roster=range(3))
    assert gateway.state.standing.held == {1}
    gateway.state.release(1)
    rounds(gateway, 2, 2)
    assert gateway.state.progress.cohort == [0, 1, 2]


def test_who_takes_its_task_and_lets_the_deadline_pass_costs_one_deadline(run, caplog):
    gateway = run(participants=3, rounds=30, min_fit_clients=2)
    waited, now = [], 10.0
    for number in range(1, 29):
        for k in (2, 0, 1):
            gateway.state.work(k, now)  # it is heard all the time
            if k != 2:
                gateway.update(k, round_number=number, now=now)
        if gateway.state.progress.round == number:
            waited.append(number)
            now += 61.0  # the deadline
            gateway.state.tick(now)
    # It rests for 8 rounds after the first one, and for 16 after the second.
    assert waited == [1, 10, 27]
    gateway.reopen(roster=range(3))
    assert gateway.state.standing.resting(29) == {2}


def test_who_was_away_without_a_task_is_asked_as_soon_as_it_is_heard(run):
    gateway = run(participants=3, rounds=4, min_fit_clients=2)
    for k in (0, 1):
        gateway.update(k)
    gateway.state.tick(61.0 + 1.0)
    assert gateway.state.progress.cohort == [0, 1]
    gateway.state.work(2, 62.0)
    for k in (0, 1):
        gateway.update(k, round_number=2, now=62.0)
    assert gateway.state.progress.cohort == [0, 1, 2]


def test_three_in_a_row_are_said_with_the_command_that_mends_it(run, caplog):
    gateway = run(participants=4, rounds=5)
    rounds(gateway, 1, 3, hostile=3)
    assert "3 is asked no more: 'edgemeta devices release 3' lets it take part again" in caplog.text


def repeated(gateway, keep=None):
    """Have round 2 repeated, as the model of it diverges on everyone; keep: a file that a kill leaves there."""
    rounds(gateway, 1, 1)
    rounds(gateway, 2, 2, hostile=2, value=4.0)
    if keep is not None:
        (gateway.path / "rounds" / "000002" / "update-000000.safetensors").write_bytes(keep)
    for k in gateway.state.progress.cohort:
        if gateway.state.progress.round == 3:
            gateway.state.diverged(k, 3, 2.0)
    assert gateway.state.progress.round == 2
    return gateway


def test_updates_that_a_kill_left_of_the_round_before_do_not_count_again_when_it_is_repeated(run, tmp_path):
    gateway = run(participants=3, rounds=4)
    update = Update({"theta": np.full(SIZE, 9.0, np.float32)}, {}, 10, 0.5, 2)
    stale = b"".join(encode_update(update, 2, NETWORK.layout.fingerprint))
    repeated(gateway, keep=stale)
    gateway.reopen()
    assert gateway.state.missing == gateway.state.progress.cohort == [0, 1]


def test_who_is_left_out_of_a_repeated_round_is_asked_again_when_the_others_are_too_few(run):
    gateway = repeated(run(participants=3, rounds=4, min_fit_clients=2))
    gateway.update(0, round_number=2, now=3.0)
    gateway.state.tick(70.0)  # the deadline: one of the two has gone
    assert gateway.state.progress.round == 2
    gateway.state.work(2, 71.0)
    assert gateway.state.progress.cohort == [0, 2]
