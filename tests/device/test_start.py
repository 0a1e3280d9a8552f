"""A device that was switched on today: it learns with the start that ships, until a run's embedding has come."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import write_config
from runs import command_line

import edgemeta
from edgemeta.bench.loopback import gateway
from edgemeta.errors import DataError, InputError

AWAY = "http://127.0.0.1:9"
COLOURS = {"my cup": (200, 40, 40), "the door": (40, 200, 40), "a key": (40, 40, 200)}
START = edgemeta.load_model("start")
RUN: dict[str, Any] = {
    "model": {"name": "conv4", "classes": "own", "input_shape": [32, 32, 3]},
    "data": {"participants": 1},
    "phases": [{"algorithm": "protonet", "rounds": 1, "local_steps": 1, "batch_size": 8, "lr": 0.1}],
    "server": {"min_fit_clients": 1},
}


def picture(label: str, seed: int = 0, size: int = 32) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-30, 30, (size, size, 3))
    return (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)


def seen(device: edgemeta.Device, label: str) -> str:
    return device.classes[int(device.predict(picture(label, 99)).argmax())]


def begins_with_the_start(state: Path) -> bool:
    theta = edgemeta.load_model(state / "personal.safetensors").theta
    return theta[: START.theta.size].tobytes() == START.theta.tobytes()


@pytest.mark.parametrize("server", [None, AWAY])
def test_it_learns_before_it_has_seen_a_gateway(tmp_path: Path, server: str | None) -> None:
    with edgemeta.Device(server, state=tmp_path / "d") as device:
        assert device.classes == ()
        with pytest.raises(DataError, match=r"nothing was taught: call step\(\) .* or learn"):
            device.predict(picture("my cup"))
        for label in ("my cup", "the door"):
            device.learn(picture(label), label)
        device.learn(picture("a key", size=90), "a key")
        assert device.classes == ("a key", "my cup", "the door")
    assert begins_with_the_start(tmp_path / "d")
    with edgemeta.Device(server, state=tmp_path / "d") as device:  # after a power cut
        assert [seen(device, label) for label in COLOURS] == [*COLOURS]
        device.forget("a key")
        assert device.classes == ("my cup", "the door")


def test_a_class_that_is_taught_as_nothing(tmp_path: Path) -> None:
    """What is none of its things is called one of them, until the device has seen some of what is none."""
    grey = [np.random.default_rng(i).integers(0, 255, (32, 32, 3)).astype(np.uint8) for i in range(6)]
    with edgemeta.Device(state=tmp_path / "d") as device:
        for label in COLOURS:
            device.learn(picture(label), label)
        assert device.classes[int(device.predict(grey[5]).argmax())] in COLOURS
        for some in grey[:5]:
            device.learn(some, "nothing")
        assert device.classes[int(device.predict(grey[5]).argmax())] == "nothing"
        assert [seen(device, label) for label in COLOURS] == [*COLOURS]


def test_without_a_gateway_there_is_nothing_to_ask_it(tmp_path: Path) -> None:
    with edgemeta.Device(state=tmp_path / "d") as device:
        with pytest.raises(InputError, match=r"given no gateway: make it with server=URL or join=FILE"):
            device.step()
        device.learn(picture("my cup"), "my cup")
    with edgemeta.Device(AWAY, state=tmp_path / "d") as device:  # it may have one later
        assert device.step().kind == "away"
        assert device.classes == ("my cup",)


@pytest.mark.slow
def test_a_runs_own_embedding_takes_over(tmp_path: Path) -> None:
    for label in COLOURS:
        for side in ("train", "test"):
            (tmp_path / "data" / side / label).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(picture(label, i)).save(tmp_path / "data" / side / label / f"{side}{i}.png")
    with edgemeta.Device(data=tmp_path / "data", state=tmp_path / "d", name="board") as device:
        device.learn(picture("a key", 9), "a key")
        assert device.classes == ("a key", "my cup", "the door")
    assert begins_with_the_start(tmp_path / "d")
    with (
        gateway(write_config(tmp_path, RUN), tmp_path / "served") as (_, url),
        edgemeta.Device(url, tmp_path / "data", tmp_path / "d", "board") as device,
    ):
        while (done := device.step(wait_s=1)).kind != "joined":
            assert done.kind in ("away", "waiting")
        assert seen(device, "my cup") == "my cup"  # with the start, as no embedding has come
        assert begins_with_the_start(tmp_path / "d")
        while (done := device.step(60, wait_s=1)).kind != "over":
            pass
        assert not begins_with_the_start(tmp_path / "d")
        device.learn(picture("a key", 10), "a key")
        assert [seen(device, label) for label in COLOURS] == [*COLOURS]
    assert not begins_with_the_start(tmp_path / "d")


@pytest.mark.slow
def test_a_run_of_other_pictures_waits_for_its_own_embedding(tmp_path: Path) -> None:
    Image.fromarray(picture("my cup")).save(tmp_path / "cup.png")
    for side in ("train", "test"):
        (tmp_path / "data" / side / "my cup").mkdir(parents=True)
        Image.fromarray(picture("my cup")).save(tmp_path / "data" / side / "my cup" / "0.png")
    other = RUN | {"model": RUN["model"] | {"name": "mlp", "input_shape": [8, 8, 3]}}
    with (
        gateway(write_config(tmp_path, other), tmp_path / "served") as (_, url),
        edgemeta.Device(url, tmp_path / "data", tmp_path / "d", "board") as device,
    ):
        while device.step(wait_s=1).kind != "joined":
            pass
        device.learn(tmp_path / "cup.png", "my cup")
        assert device.classes == ()


@pytest.mark.slow
def test_from_a_shell_and_from_nothing(tmp_path: Path) -> None:
    for label in COLOURS:
        Image.fromarray(picture(label, size=50)).save(tmp_path / f"{label}.png")
    state = ("learn", "--state", tmp_path / "d")
    done = command_line(*state, "my cup", tmp_path / "my cup.png")
    assert done.stderr == f"{tmp_path / 'd'} is a new device's state from now on\n"
    assert done.stdout.splitlines() == ["1 new pictures of my cup", "this device tells apart: my cup"]
    done = command_line(*state, "the door", tmp_path / "the door.png")
    assert (done.stderr, done.stdout.splitlines()[1]) == ("", "this device tells apart: my cup, the door")
    Image.fromarray(picture("my cup", 99)).save(tmp_path / "new.png")
    done = command_line("predict", tmp_path / "d" / "personal.safetensors", tmp_path / "new.png")
    assert done.stdout.startswith(f"{tmp_path / 'new.png'}: my cup "), done.stderr
