"""Whatever is raised where nobody expects it: the gateway says so once, counts it, wakes who waits, and goes on."""

import threading
import time
from contextlib import contextmanager

import pytest
from gateways import ACCEPTED, SIZE, Gateway, no_gateway_left, refused, wait_for

from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.lines import round_line
from edgemeta.gateway.roster import Roster


class Strange(Exception):
    """Of no class that anything here knows."""


def broken(*_arguments, **_more):
    raise Strange("as nobody\nexpected")


@pytest.fixture
def run(tmp_path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(tmp_path / "state", **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def lines(caplog):
    """What was logged of it: one line each, with the place."""
    said = [record.getMessage() for record in caplog.records if "Strange" in record.getMessage()]
    assert all("as nobody\\nexpected; at test_goes_on.py:" in line and "\n" not in line for line in said)
    return said


@contextmanager
def woken(device, work, within_s=1.0):
    """Hold that a device which waits for work has it soon after what is done in the context."""
    found = []
    thread = threading.Thread(target=lambda: found.append((device.work(wait=20), time.monotonic())))
    thread.start()
    time.sleep(0.1)
    assert not found
    start = time.monotonic()
    yield
    thread.join(20)
    assert found[0][0] == work
    assert found[0][1] - start < within_s


def test_a_hook_that_fails_costs_nobody_anything(run, caplog):
    gateway = run(on_round=broken, every=1)
    first, second = gateway.device("first"), gateway.device("second")
    assert first.scores() == ACCEPTED
    with woken(first, ("train", 1)):
        assert second.scores() == ACCEPTED
    assert first.update() == second.update() == ACCEPTED
    assert first.scores(1) == second.scores(1) == ACCEPTED
    assert first.work() == 410
    assert first.status()["errors"] == {"hook": 2}
    assert len(lines(caplog)) == 1


def test_a_history_that_cannot_be_read_costs_nobody_anything(run, monkeypatch, caplog):
    gateway = run()
    first, second = gateway.device("first"), gateway.device("second")
    assert first.scores() == ACCEPTED
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "history", broken)
        with woken(first, ("train", 1)):
            assert second.scores() == ACCEPTED
    assert first.status()["errors"] == {"hook": 1}
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("error", [Strange, KeyError, MemoryError, RecursionError, OSError, ValueError])
def test_a_tick_that_fails_comes_again(run, monkeypatch, caplog, error):
    tick, failed = Coordinator.tick, []

    def late(*arguments):
        if len(failed) < 3:
            failed.append(arguments)
            raise error("as nobody\nexpected")
        tick(*arguments)

    monkeypatch.setattr("edgemeta.gateway.gateway.TICK_S", 0.05)
    monkeypatch.setattr(Coordinator, "tick", late)
    gateway = run(round_deadline_s=0.3, min_fit_clients=1, participants=1, held_out=0)
    device = gateway.device("cam")
    wait_for(lambda: len(gateway.records) == 1)  # by the deadline, without scores
    assert device.work(wait=5) == ("train", 1)
    assert device.status()["errors"] == ({"tick": 3} if error is not OSError else {})
    assert len([record for record in caplog.records if "as nobody" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("kind", "method", "ask"),
    [
        (Roster, "join", lambda device: device.join()),
        (Coordinator, "work", lambda device: (200, None) if device.work() == ("train", 1) else (500, None)),
        (Coordinator, "is_new", lambda device: device.update()),
        (Coordinator, "deliver", lambda device: device.update()),
    ],
)
def test_a_request_that_fails_is_answered_and_can_be_sent_again(run, monkeypatch, caplog, kind, method, ask):
    gateway = run()
    device, other = gateway.devices()
    with monkeypatch.context() as patch:
        patch.setattr(kind, method, broken)
        for _ in range(3):
            assert ask(device)[0] == 500
        assert device.call("GET", "/healthz")[0] == 200
    assert ask(device)[0] == 200
    assert device.status()["errors"] == {"request": 3}
    assert len(lines(caplog)) == 1
    assert other.update(3.0) == ACCEPTED


def test_a_delivery_that_fails_after_it_has_changed_the_run_still_wakes_who_waits(run, monkeypatch):
    gateway = run()
    device, other = gateway.devices()
    deliver = Coordinator.deliver

    def half(*arguments):
        deliver(*arguments)
        broken()

    assert device.update(2.0) == ACCEPTED
    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "deliver", half)
        with woken(device, ("evaluate", 1)):
            assert refused(other.update(4.0)) == (500, "internal-error")
    assert other.update(4.0) == ACCEPTED
    assert device.theta == [3.0] * SIZE


def test_an_error_in_nobodys_task_is_counted_too(run, caplog):
    gateway = run()
    device = gateway.device("cam")
    gateway.loop.call_soon_threadsafe(broken)
    wait_for(lambda: device.status()["errors"] == {"callback": 1})
    assert len(lines(caplog)) == 1


def test_a_round_of_before_without_an_accuracy_is_shown_by_its_loss():
    scores = {"loss": {"mean": 0.5}}
    evaluation = {"before": {**scores, "accuracy": {"mean": 0.25}}, "after": scores}
    record = {"round": 1, "phase": "p", "train_loss": None, "failures": 0, "seconds": 1.0, "evaluation": evaluation}
    assert round_line(record, 4) == "round 1/4  p  accuracy 0.500 -> 0.500  1.0 s"
