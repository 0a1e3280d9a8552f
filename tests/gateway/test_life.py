"""A board's life on a gateway: removed, replaced, late, copied, asleep."""

import pytest
from gateways import Device, Gateway, no_gateway_left, refused, wait_for

from edgemeta.gateway.tokens import DEVICES_FILE, REMOVE, REPLACE, order
from edgemeta.gateway.twins import Twins

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(tmp_path / "run", **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def named(gateway):
    return {device["name"]: device["participant"] for device in Device(gateway.port, "operator").status()["devices"]}


def test_a_removed_boards_place_is_free_and_a_replaced_ones_is_the_new_boards(run):
    gateway = run(rounds=9)
    first, second = gateway.devices()
    assert refused(Device(gateway.port, "cam-2").join()) == (409, "run-full")
    assert "'edgemeta devices replace OLD NEW'" in Device(gateway.port, "cam-2").join()[1]["detail"]
    order(gateway.path / DEVICES_FILE, "cam-1", f"{REPLACE} cam-2")
    wait_for(lambda: named(gateway) == {"cam-0": 0, "cam-2": 1})
    assert second.work() == 401  # its session is nobody's any more
    new = gateway.device("cam-2")
    assert new.participant == 1
    assert new.work(5) == ("train", 1)
    order(gateway.path / DEVICES_FILE, "cam-2", REMOVE)
    wait_for(lambda: named(gateway) == {"cam-0": 0})
    assert "1 are left: 'edgemeta enroll NAME'" in first.status()["waiting_for"]
    gateway.stop()
    gateway.start()  # the orders were followed once, and stay so
    assert gateway.device("cam-3").participant == 1


def test_a_board_is_replaced_under_its_own_name(run):
    gateway = run(rounds=9)
    gateway.devices()
    status, answer = Device(gateway.port, "cam-1").join(key="0" * 32)
    assert (status, answer["error"]) == (409, "name-in-use")
    assert "'edgemeta devices replace cam-1 cam-1'" in answer["detail"]
    order(gateway.path / DEVICES_FILE, "cam-1", f"{REPLACE} cam-1")
    wait_for(lambda: Device(gateway.port, "cam-1").join(key="0" * 32)[0] == 200)


def test_who_has_a_place_cannot_have_another_ones_too(run, caplog):
    gateway = run(rounds=9)
    gateway.devices()
    order(gateway.path / DEVICES_FILE, "cam-1", f"{REPLACE} cam-0")
    wait_for(lambda: "'edgemeta devices remove cam-1'" in caplog.text)
    assert named(gateway) == {"cam-0": 0, "cam-1": 1}


def test_numbers_are_never_used_again_where_as_many_as_join_take_part(run):
    gateway = run(participants=0, rounds=9)
    assert [gateway.device(f"cam-{k}").participant for k in range(3)] == [0, 1, 2]
    order(gateway.path / DEVICES_FILE, "cam-2", REMOVE)
    wait_for(lambda: len(named(gateway)) == 2)
    gateway.stop()
    gateway.start()
    assert gateway.device("cam-3").participant == 3
    assert refused(Device(gateway.port, "cam-4").join(partition_id=1)) == (422, "bad-partition-id")
    assert "participants" not in Device(gateway.port, "x").call("GET", "/v1/run")[2]["data"]


def test_a_board_that_comes_after_the_run_gets_its_model_and_no_place_in_it(run):
    gateway = run(participants=1, rounds=1, min_fit_clients=1)
    (device,) = gateway.devices(1)
    assert device.work(5) == ("train", 1)
    device.update()
    assert device.work(5) == ("evaluate", 1)
    device.scores(1)
    wait_for(lambda: device.status()["stage"] == "over")
    late = gateway.device("late")
    assert late.participant == 1  # which is nobody's in a run of one
    assert late.work() == 410
    assert late.call("GET", "/v1/model")[0] == 200
    said = late.call("GET", "/v1/run")[2]
    assert (said["stage"], said["free"]) == ("over", 0)


def test_two_boards_with_one_card_are_noticed_and_named(run, caplog):
    gateway = run(rounds=9)
    device, _ = gateway.devices()
    for number in ("a", "a", "b", "b", "c"):  # started anew, again and again
        device.call("GET", "/v1/work", **{"X-Edgemeta-Number": number})
    assert device.status()["copied"] == []
    device.call("GET", "/v1/work", **{"X-Edgemeta-Number": "b"})
    assert device.status()["copied"] == ["cam-0"]
    assert caplog.text.count("cam-0 is two boards, as its card was copied") == 1


def test_what_is_remembered_of_numbers_is_bounded():
    twins = Twins()
    for number in range(1000):
        assert not twins.heard(0, f"{number:0200d}"[-64:])
    assert len(twins._said[0]) == 8
    assert twins.heard(0, f"{997:064d}")
    assert not twins.heard(0, f"{998:064d}")  # said once
    twins.forget(0)
    assert not twins.found


def test_a_board_says_for_how_long_it_sleeps(run):
    gateway = run(participants=3, rounds=9, min_fit_clients=2)
    devices = gateway.devices(3)
    sleeper = devices[2]
    answer = sleeper.call("GET", "/v1/work?wake=900")
    assert answer[0] == 200
    assert "X-Edgemeta-Seconds-Left" not in answer[1]  # its update may come later than that
    assert sleeper.status()["wakes"] == {"cam-2": 900.0}
    for device in devices[:2]:
        assert device.work(5) == ("train", 1)
        device.update()
    assert devices[0].work(5) == ("train", 2)  # nobody waited for it
    assert sleeper.update(round_number=1) == (200, {"accepted": True})
    assert refused(sleeper.call("GET", "/v1/work?wake=soon")[::2]) == (422, "bad-field")
