"""What a device looks at before it takes a place in a run, and what it waits for."""

import numpy as np
import pytest
from PIL import Image
from processes import write_config

from edgemeta import Device
from edgemeta.bench.loopback import gateway
from edgemeta.device.done import Kind
from edgemeta.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

SETTINGS = {
    "model": {"name": "mlp", "input_shape": [8, 8, 3], "classes": ["empty", "visitor"]},
    "data": {"participants": 1},
    "phases": [{"algorithm": "fedavg", "rounds": 1, "local_steps": 2}],
    "server": {"min_fit_clients": 1},
}
RIGHT, WRONG = (((np.zeros((8, side, side, 3), np.uint8), np.arange(8) % 2),) * 2 for side in (8, 16))


def step(device):
    """Do a step that is not one of waiting."""
    while (done := device.step()).kind == Kind.WAITING:
        pass
    return done


def test_data_that_does_not_fit_takes_no_place(tmp_path):
    with gateway(write_config(tmp_path, SETTINGS), tmp_path / "served") as (_, url):
        with Device(url, WRONG, tmp_path / "wrong", "wrong") as device, pytest.raises(DataError, match="16, 16, 3"):
            device.step()
        with Device(url, RIGHT, tmp_path / "right", "right") as device:
            assert str(device.step()) == "joined as participant 0"  # there is one place


def test_a_board_without_data_waits_and_joins_when_there_is_some(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with (
        gateway(write_config(tmp_path, SETTINGS), tmp_path / "served") as (_, url),
        Device(url, pictures, tmp_path / "d", "board") as device,
    ):
        done = device.step()
        assert (done.kind, done.text[:31]) == (Kind.DATA, "waiting for this device's data:")
        (pictures / "empty").mkdir()
        assert step(device).kind == Kind.DATA
        rng = np.random.default_rng(0)
        for i in range(30):  # of one class: the other one has not been seen yet
            picture = rng.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(picture).save(pictures / "empty" / f"{i}.png")
        assert str(step(device)) == "joined as participant 0"
        while done.kind != Kind.OVER:
            done = step(device)


def test_as_many_as_join_take_part_and_no_part_of_a_data_set_is_asked_for(tmp_path):
    settings = SETTINGS | {"data": {"participants": 0}}
    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, url):
        part = Device(url, RIGHT, tmp_path / "a", "a", partition_id=0)
        with part as device, pytest.raises(ConfigError, match="as many as join take part"):
            device.step()
        with Device(url, RIGHT, tmp_path / "b", "b") as device:
            assert str(device.step()) == "joined as participant 0"


def test_a_simulation_says_into_how_many_parts_data_is_cut():
    import edgemeta

    with pytest.raises(ConfigError, match="say into how many"):
        edgemeta.simulate({"data": {"participants": 0, "source": "synthetic:samples=60,size=8,classes=2"}})
