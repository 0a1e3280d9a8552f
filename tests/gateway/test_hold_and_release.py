"""Who is held back, by the operator or by the run, and a device that says that the model diverges on it."""

import numpy as np
import pytest
from gateways import ACCEPTED, Gateway, no_gateway_left, refused, wait_for
from processes import SPEC, write_config
from runs import TINY, command_line

import edgemeta
from edgemeta.bench.loopback import gateway as served
from edgemeta.device.done import Kind
from edgemeta.gateway.tokens import DEVICES_FILE, enroll


@pytest.fixture
def run(tmp_path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(tmp_path / "state", **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def test_held_by_hand_while_the_gateway_runs_and_released_while_it_does_not(run, tmp_path):
    gateway = run(participants=3, rounds=4)
    devices = gateway.devices(3)
    done = command_line("devices", "hold", "cam-2", "--state", tmp_path / "state")
    assert (done.returncode, "'cam-2' is held" in done.stdout) == (0, True), done.stderr
    wait_for(lambda: devices[0].status()["held"] == ["cam-2"])
    for device in devices:
        assert device.work() == ("train", 1)  # who was asked before may still deliver
        assert device.update() == ACCEPTED
    assert devices[2].work() == 204
    assert devices[0].status()["cohort"] == ["cam-0", "cam-1"]
    gateway.stop()
    assert command_line("devices", "release", "cam-2", "--state", tmp_path / "state").returncode == 0
    gateway.start()
    for device in devices:
        device.port = gateway.port
    wait_for(lambda: devices[0].status()["held"] == [])
    for device in devices[:2]:
        assert device.update(round_number=2) == ACCEPTED
    assert devices[2].work() == ("train", 3)
    unknown = command_line("devices", "hold", "nobody", "--state", tmp_path / "state")
    assert (unknown.returncode, "no device 'nobody' has joined" in unknown.stderr) == (2, True)


def test_the_list_says_who_is_held(run, tmp_path):
    gateway = run(participants=2)
    devices = gateway.devices(2)
    for name in ("cam-0", "cam-1"):
        enroll(tmp_path / "state" / DEVICES_FILE, name, name, 0)
    assert command_line("devices", "hold", "cam-1", "--state", tmp_path / "state").returncode == 0
    wait_for(lambda: devices[0].status()["held"] == ["cam-1"])
    first, second = command_line("devices", "--state", tmp_path / "state").stdout.splitlines()
    assert ("cam-0" in first, "asked no more" in first) == (True, False)
    assert ("cam-1" in second, "edgemeta devices release" in second) == (True, True)


def test_a_device_that_says_it_diverges_is_not_waited_for(run):
    gateway = run(participants=3)
    devices = gateway.devices(3)
    for device in devices:
        assert device.work() == ("train", 1)
    status, _, answer = devices[2].call("POST", "/v1/rounds/1/diverged", {})
    assert (status, answer) == ACCEPTED
    assert devices[2].work() == 204
    assert devices[0].update(4.0) == devices[1].update(8.0) == ACCEPTED
    assert devices[0].work() == ("evaluate", 1)
    status, _, answer = devices[2].call("POST", "/v1/rounds/7/diverged", {})
    assert refused((status, answer)) == (409, "wrong-round")


def test_a_real_device_says_it(tmp_path):
    wild = {"algorithm": "fedavg", "rounds": 1, "local_steps": 3, "batch_size": 4, "lr": 1e30}
    data = {"source": SPEC, "participants": 1, "partition": "iid"}
    config = write_config(tmp_path, TINY | {"data": data, "phases": [wild]})
    with served(config, tmp_path / "served") as (_, url), edgemeta.Device(url, SPEC, tmp_path / "d", "b", 0) as device:
        kinds = []
        while Kind.DIVERGED not in kinds:
            device._pace.asked(None)
            kinds.append(device.step().kind)
            assert len(kinds) < 20
    assert "round 1: the model diverges on b" in (tmp_path / "served.log").read_text()
    assert np.isfinite(edgemeta.load_model(tmp_path / "served" / "model.safetensors").theta).all()
