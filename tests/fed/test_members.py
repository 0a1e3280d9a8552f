"""Boards come, die, are replaced and sleep: who takes part in a round, by messages and a clock that the test turns."""

import logging

import pytest
from test_coordinator import NETWORK, Gateway

from edgemeta.config import config_from
from edgemeta.errors import ConfigError
from edgemeta.fed.plan import resolve
from edgemeta.fed.refusal import Refused

WAKE_S, DEADLINE_S = 900.0, 600.0  # of devices/duty_cycle.py, and of a configuration that gives none


@pytest.fixture
def run(tmp_path):
    opened = []

    def start(**settings):
        opened.append(Gateway(tmp_path / "run", **settings))
        return opened[-1]

    yield start
    for gateway in opened:
        gateway.directory.close()


def a_round(gateway, number, who, now):
    """Let these deliver in a round that asks them."""
    for k in who:
        assert gateway.state.work(k, now).round == number
        gateway.update(k, round_number=number, now=now)


def test_a_board_that_died_is_removed_and_the_rest_goes_on(run):
    gateway = run(rounds=3)
    gateway.start()
    a_round(gateway, 1, (0, 1), 2.0)
    assert gateway.state.missing == [2]
    gateway.state.remove(2, 3.0)  # nobody waits for it any more
    assert gateway.state.progress.round == 2
    assert gateway.state.quorum == 2  # three were to be there before
    gateway.reopen(roster=(0, 1))
    a_round(gateway, 2, (0, 1), 4.0)
    gateway.state.join(2)  # another board in its place, which begins from nothing
    assert gateway.state.quorum == 3
    a_round(gateway, 3, (0, 1), 5.0)
    gateway.state.tick(5.0 + 61)
    assert [record["participants"] for record in gateway.history[1:]] == [2, 2, 2]


def test_what_a_removed_board_has_delivered_counts(run):
    gateway = run(rounds=2)
    gateway.start()
    a_round(gateway, 1, (2,), 2.0)
    gateway.state.remove(2, 3.0)
    a_round(gateway, 1, (0, 1), 4.0)
    assert gateway.history[1]["participants"] == 3


def test_too_few_are_left_and_it_is_said_what_mends_it(run):
    gateway = run(participants=2, rounds=3)
    gateway.start()
    assert gateway.state.shortage == ""
    gateway.state.remove(1, 2.0)
    assert "2 are needed for a round, and 1 are left" in gateway.state.shortage
    assert "'edgemeta run set server.min_fit_clients=1'" in gateway.state.shortage
    gateway.state.join(1)
    gateway.state.hold(1)
    assert "'edgemeta devices release 1'" in gateway.state.shortage


def test_a_replaced_board_has_a_clean_slate_and_is_not_waited_for(run):
    gateway = run(rounds=2)
    gateway.start()
    gateway.state.hold(2)
    gateway.state.replace(2)
    assert not gateway.state.standing.held
    a_round(gateway, 1, (0, 1), 2.0)
    gateway.state.tick(100.0)
    assert gateway.state.progress.cohort == [0, 1]  # it is away until it joins


def test_as_many_as_join_take_part_and_newcomers_are_scored_as_new_ones_first(run):
    gateway = run(participants=0, roster=(), rounds=3, every=1, min_available_clients=3)
    for k in range(3):
        assert not gateway.state.progress.cohort
        gateway.state.join(k)
        gateway.state.tick(0.5)
    gateway.start()
    assert "evaluation_new" not in gateway.history[0]  # who is there at the start is no newcomer
    a_round(gateway, 1, (0, 1), 2.0)
    gateway.state.join(7)
    assert gateway.state.work(7, 2.0) is None  # from the next round on
    a_round(gateway, 1, (2,), 3.0)
    for k in (0, 1, 2, 7):
        gateway.scores(k, 1, accuracy=0.9 if k == 7 else 0.5)
    assert gateway.history[1]["evaluation_new"]["after"]["accuracy"]["mean"] == 0.9
    assert gateway.history[1]["evaluation"]["after"]["accuracy"]["mean"] == 0.5
    a_round(gateway, 2, (0, 1, 2, 7), 4.0)
    for k in (0, 1, 2, 7):
        gateway.scores(k, 2)
    assert "evaluation_new" not in gateway.history[2]
    assert gateway.history[2]["participants"] == 4


def test_where_as_many_as_join_take_part_two_open_a_round_unless_it_is_said():
    def server(**settings):
        settings = {"data": {"participants": 0}, "server": settings}
        return resolve(config_from(settings), (3,), ("a", "b"), NETWORK).server

    assert (server().min_available_clients, server().min_fit_clients) == (2, 2)
    assert (server(min_available_clients=1).min_available_clients, server(min_available_clients=1).min_fit_clients) == (
        1,
        1,
    )
    assert (server(min_available_clients=5).min_available_clients, server(min_available_clients=5).min_fit_clients) == (
        5,
        2,
    )
    assert (server(min_fit_clients=4).min_available_clients, server(min_fit_clients=4).min_fit_clients) == (4, 4)
    with pytest.raises(ConfigError, match="all of them train"):
        config_from({"data": {"participants": 0, "held_out": 1}})


def test_an_update_that_comes_late_counts_in_the_open_round_and_the_record_says_so(run):
    gateway = run(rounds=9, min_fit_clients=2)
    gateway.start()
    task = gateway.state.work(2, 2.0, WAKE_S)
    assert task.round == 1
    a_round(gateway, 1, (0, 1), 3.0)  # nobody waits for who sleeps
    a_round(gateway, 2, (0, 1), 4.0)
    gateway.update(2, 5.0, round_number=1, now=5.0)
    gateway.reopen(now=5.0)  # what was accepted is on disk
    gateway.update(2, 5.0, round_number=1, now=5.0)  # and is taken once
    assert gateway.state.work(2, 5.0, WAKE_S).round == 3  # the next one, which waits until that has counted
    with pytest.raises(Refused, match="send that of round 3 later"):
        gateway.update(2, round_number=3, now=5.0)
    before = gateway.theta
    for k in (0, 1):
        gateway.update(k, 1.0, round_number=3, now=6.0)
    assert gateway.history[3]["late"] == [2]
    assert (gateway.history[3]["participants"], gateway.history[3]["failures"]) == (3, 0)
    # (1 + 1 + 5) / 3, as all have ten samples; the clip cuts at five times the median norm, which 5 just reaches.
    assert (gateway.theta - before).tolist() == pytest.approx([7 / 3] * 8)
    assert gateway.state.progress.counted == {"0": 3, "1": 3, "2": 1}
    assert all("late" not in gateway.history[n] for n in (1, 2))
    assert gateway.state.work(2, 7.0, WAKE_S).counted == 1  # the round whose private vectors count


@pytest.mark.parametrize(("lag", "accepted"), [(2, True), (1, False), (0, False)])
def test_how_late_one_may_be(run, lag, accepted):
    gateway = run(rounds=9, min_fit_clients=2, max_lag=lag)
    gateway.start()
    assert gateway.state.work(2, 2.0, WAKE_S).round == 1
    for number in (1, 2):
        a_round(gateway, number, (0, 1), 3.0)
        if not lag:
            gateway.state.tick(3.0 + 61 * number)  # then nobody sleeps, and it is waited for once
    if accepted:
        gateway.update(2, round_number=1, now=200.0)
        assert 2 in gateway.state._collected.updates
    else:
        with pytest.raises(Refused, match="round 1 is not open"):
            gateway.update(2, round_number=1, now=200.0)


def test_only_who_sleeps_may_be_late_and_a_held_one_not(run):
    gateway = run(rounds=9, min_fit_clients=2)
    gateway.start()
    gateway.state.work(2, 2.0, WAKE_S)
    a_round(gateway, 1, (0, 1), 3.0)
    with pytest.raises(Refused, match="not open"):
        gateway.update(1, round_number=0, now=3.0)
    gateway.state.hold(2)
    with pytest.raises(Refused, match="not open"):
        gateway.update(2, round_number=1, now=4.0)
    assert gateway.state.work(2, 4.0, WAKE_S) is None


def test_what_comes_late_while_a_model_is_scored_counts_in_the_next_round(run):
    gateway = run(rounds=9, every=2, min_fit_clients=2)
    gateway.start()
    gateway.state.work(2, 2.0, WAKE_S)
    for number in (1, 2):
        a_round(gateway, number, (0, 1), 3.0)
    assert gateway.state.progress.stage == "evaluate"
    gateway.update(2, round_number=1, now=4.0)
    gateway.reopen(now=4.0)
    for k in (0, 1):
        gateway.scores(k, 2, now=5.0)
    a_round(gateway, 3, (0, 1), 6.0)
    assert gateway.history[3]["late"] == [2]


def test_where_most_sleep_a_round_is_open_for_a_wake_longer_and_says_so(run, caplog):
    caplog.set_level(logging.INFO, "edgemeta")
    gateway = run(participants=4, rounds=2, round_deadline_s=DEADLINE_S)
    for k in range(4):
        gateway.state.work(k, 0.0, WAKE_S if k else 0.0)
    for k in range(4):
        gateway.scores(k)
    assert gateway.state.progress.cohort == [0, 1, 2, 3]
    assert (
        "round 1: 3 of 4 boards wake every 15 min or more often: it closes after 25 min instead of 10 min"
        in caplog.text
    )
    gateway.state.work(0, 1.0)
    gateway.update(0, now=1.0)
    gateway.state.tick(1.0 + DEADLINE_S + WAKE_S - 1)
    assert gateway.state.progress.round == 1
    for k in (1, 2, 3):
        gateway.update(k, now=1000.0)
    assert gateway.history[1]["participants"] == 4
    assert not gateway.state.standing.rests


@pytest.mark.parametrize(("round_s", "takes_s"), [(30.0, 45.0), (500.0, 80.0)])
def test_with_the_defaults_a_sleeper_takes_part_in_nine_of_ten_wakes(run, round_s, takes_s):
    """Beside always-on boards whose rounds take so long; what takes more than a wake's 60 s comes with the next."""
    gateway = run(rounds=0, every=1000, round_deadline_s=DEADLINE_S, min_fit_clients=2)
    gateway.start()
    now, counted, task = 1.0, 0, None
    gateway.state.work(2, now, WAKE_S)

    def go_on(until):
        nonlocal now
        closed = int(until // round_s) - int(now // round_s)
        for _ in range(min(closed, 3)):  # further ones change nothing here
            a_round(gateway, gateway.state.progress.round, (0, 1), until)
        now = until

    def deliver():
        gateway.update(2, round_number=task.round, now=now)  # accepted, or it raises
        return 1

    for wake in range(1, 13):
        go_on(wake * (WAKE_S + 1.7))
        counted += deliver() if takes_s > 60 and task else 0
        task = gateway.state.work(2, now, WAKE_S)
        if takes_s <= 60 and task:
            go_on(now + takes_s)
            counted += deliver()
    assert counted >= 0.9 * 12
