"""A device that is taught: pictures count at once, stay, are trained on and never scored, and can be forgotten."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import write_config
from runs import command_line

import edgemeta
from edgemeta.bench.loopback import gateway
from edgemeta.data import open_data
from edgemeta.device.taught import folder_name
from edgemeta.errors import DataError

pytestmark = pytest.mark.slow

AWAY = "http://127.0.0.1:9"
RUN: dict[str, Any] = {
    "model": {"name": "mlp", "classes": "own", "input_shape": [8, 8, 3]},
    "data": {"participants": 1},
    "phases": [{"algorithm": "protonet", "rounds": 1, "local_steps": 3, "batch_size": 12, "lr": 0.1}],
    "server": {"min_fit_clients": 1},
    "evaluation": {"reject": 0.1},
}
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def picture(colour: str, seed: int = 0, size: int = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-30, 30, (size, size, 3))
    return (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)


def seen(device: edgemeta.Device, colour: str) -> str:
    return device.classes[int(device.predict(picture(colour, 99)).argmax())]


@pytest.fixture(scope="module")
def after_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a device's state after a run, and its data: two classes, split by their content."""
    folder = tmp_path_factory.mktemp("run")
    for name, colour in (("cup", "red"), ("door", "green")):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(picture(colour, i)).save(folder / "data" / name / f"{i}.png")
    with (
        gateway(write_config(folder, RUN), folder / "served") as (_, url),
        edgemeta.Device(url, folder / "data", folder / "state", "board") as device,
    ):
        for _ in range(200):
            done = device.step(60.0, wait_s=1)
            if done.kind == "over":
                break
            time.sleep(min(done.wait_s, 0.2))
    assert done.kind == "over"
    return folder


@pytest.fixture
def place(after_a_run: Path, tmp_path: Path) -> Path:
    """A copy of it, whose gateway is away from now on."""
    for name in ("data", "state"):
        shutil.copytree(after_a_run / name, tmp_path / name)
    kept = tmp_path / "state" / "device.json"
    kept.write_text(kept.read_text().replace(str(after_a_run), str(tmp_path)))
    return tmp_path


def reopened(place: Path) -> edgemeta.Device:
    url = json.loads((place / "state" / "device.json").read_text())["server"]
    return edgemeta.Device(url, place / "data", place / "state", "board")


def test_a_picture_counts_at_once_and_after_a_power_cut(place: Path) -> None:
    with reopened(place) as device:
        assert device.classes == ("cup", "door")
        assert seen(device, "blue") in ("cup", "door")
        foreign = [sum(device.unlike(picture(colour, k)) for k in range(100, 120)) for colour in COLOURS]
        assert [count > 10 for count in foreign] == [False, False, True]
        device.learn(picture("blue"), "my key")
        assert device.classes == ("cup", "door", "my key")
        assert [seen(device, colour) for colour in COLOURS] == ["cup", "door", "my key"]
        device.learn(picture("blue", 1, size=30), "my key")  # of another size, by one forward pass
        held = device._held
        assert held is not None
        assert len(held.labels) == 42
        afresh = edgemeta.device.learned.held_by(device._state, device._run, place / "data")
        assert sorted(afresh.labels) == sorted(held.labels)
        order, other = (np.lexsort(h.z.T[:3]) for h in (held, afresh))
        np.testing.assert_allclose(held.z[order], afresh.z[other], rtol=1e-4, atol=1e-5)
        # No close and no more calls: what was returned from is on disk.
        assert edgemeta.load_model(place / "state" / "personal.safetensors").classes == device.classes
        device.learn(picture("blue"), "my key")  # the same again
        assert len(list((place / "data" / "my key").iterdir())) == 2
    with reopened(place) as device:
        assert seen(device, "blue") == "my key"


def test_what_is_taught_is_trained_on_and_never_scored(place: Path) -> None:
    with reopened(place) as device:
        for i in range(30):
            device.learn(picture("blue", i), "my key")
    split = open_data(str(place / "data"), shape=(8, 8, 3))
    names = split.train.classes
    assert np.count_nonzero(split.train.labels == names.index("my key")) == 30
    assert np.count_nonzero(split.test.labels == names.index("my key")) == 0
    assert 0 < np.count_nonzero(split.test.labels == names.index("cup")) < 20
    (place / "sides" / "train" / "cup").mkdir(parents=True)
    (place / "sides" / "test" / "cup").mkdir(parents=True)
    for side in ("train", "test"):
        Image.fromarray(picture("red")).save(place / "sides" / side / "cup" / "0.png")
    with edgemeta.Device(AWAY, place / "sides", place / "other") as device:  # which has never joined
        device.learn(picture("blue"), "my key")
        assert device.classes == ("cup", "my key")  # with the start that ships
    assert len(list((place / "sides" / "train" / "my key").iterdir())) == 1


def test_a_model_in_use_stays_while_no_embedding_has_come(place: Path) -> None:
    """Of another gateway's run, say: what the device was adapted to before is all that it has."""
    with edgemeta.Device(AWAY, place / "data", place / "state", "board") as device:
        assert device.classes == ("cup", "door")
        device.learn(picture("blue"), "my key")
        assert device.classes == ("cup", "door")
    assert (place / "state" / "personal.safetensors").exists()
    with reopened(place) as device:  # and then it counts
        device.learn(picture("blue", 1), "my key")
        assert device.classes == ("cup", "door", "my key")


def test_forgetting_to_the_last_class(place: Path) -> None:
    with reopened(place) as device:
        device.learn(picture("blue"), "my key")
        with pytest.raises(DataError, match=r"20 pictures in .*cup were not taught: remove them there"):
            device.forget("cup")
        device.forget("my key")
        assert device.classes == ("cup", "door")
        with pytest.raises(DataError, match="cannot forget 'my key': it was not taught"):
            device.forget("my key")
    shutil.rmtree(place / "data")
    (place / "data").mkdir()
    with reopened(place) as device:
        device.learn(picture("blue"), "one")
        assert device.classes == ("one",)
        device.forget("one")
        with pytest.raises(DataError, match="adapt it first"):
            device.predict(picture("blue"))


@pytest.mark.parametrize("label", ["", " ", ".hidden", "x" * 300, "two\nlines", None, 3])
def test_labels_that_are_no_names_are_refused(place: Path, label: Any) -> None:
    with reopened(place) as device, pytest.raises(DataError, match=r"label|class name"):
        device.learn(picture("blue"), label)
    assert sorted(path.name for path in (place / "data").iterdir()) == ["cup", "door"]


def test_a_name_that_no_folder_can_have_is_written_in_another_way() -> None:
    assert folder_name("left/right") == "left∕right"
    assert folder_name(" e\u0301t\u00e9 ") == "\u00e9t\u00e9"


def test_what_is_no_picture_is_refused_and_changes_nothing(place: Path) -> None:
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"IEND\xaeB`\x82")
    (place / "text.png").write_text("no picture")
    wrong = [place / "broken.png", place / "text.png", place / "absent.png", np.zeros((8, 8, 5), np.uint8), np.zeros(7)]
    with reopened(place) as device:
        for image in wrong:
            with pytest.raises(DataError):
                device.learn(image, "thing")
    assert sorted(path.name for path in (place / "data").iterdir()) == ["cup", "door"]


def test_from_a_shell_while_the_device_runs_and_while_it_does_not(place: Path) -> None:
    for i in range(2):
        Image.fromarray(picture("blue", i, 40)).save(place / f"{i}.jpg")
    (place / "site").mkdir()
    (place / "site" / "run.toml").touch()
    state = ("learn", "--state", place / "state")
    done = command_line(*state, "my key", place / "0.jpg")
    assert done.stdout.splitlines() == ["1 new pictures of my key", "this device tells apart: cup, door, my key"], (
        done.stderr
    )
    with reopened(place) as device:
        assert seen(device, "blue") == "my key"
        done = command_line(*state, "my key", place / "0.jpg", place / "1.jpg")
        assert done.stdout.splitlines()[0] == "1 new pictures of my key", done.stderr
        device.learn(picture("red", 50), "cup")
        held = device._held
        assert held is not None
        assert held.labels.count("my key") == 2
    for arguments, said in (
        (("learn", "--state", place / "site", "a", place / "0.jpg"), "is the folder of a gateway or of a run"),
        ((*state, "a", place / "state" / "device.json"), "cannot read"),
    ):
        done = command_line(*arguments)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_without_data_the_state_directory_keeps_what_is_taught(place: Path) -> None:
    with edgemeta.Device(AWAY, None, place / "new") as device:
        device.learn(picture("blue"), "thing")
        assert [path.name for path in (place / "new" / "learned").iterdir()] == ["thing"]
    with edgemeta.Device(AWAY, place / "later", place / "other") as device:  # a folder that is yet to be filled
        device.learn(picture("blue"), "thing")
        assert [path.name for path in (place / "later").iterdir()] == ["thing"]
    with (
        edgemeta.Device(AWAY, place / "data", place / "part", partition_id=0) as device,
        pytest.raises(DataError, match="takes a part of a data set that is cut"),
    ):
        device.learn(picture("blue"), "thing")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_beside_arrays_what_is_taught_is_kept_counts_and_is_trained_on(place: Path, kind: Any) -> None:
    x = np.stack([picture(colour, i) for colour in ("red", "green") for i in range(20)])
    x = x if kind is np.uint8 else (x / 255).astype(kind)
    whole = (x, ["cup"] * 20 + ["door"] * 20)
    for source in (whole, lambda: whole):
        shutil.rmtree(place / "state" / "learned", ignore_errors=True)
        url = json.loads((place / "state" / "device.json").read_text())["server"]
        with edgemeta.Device(url, source, place / "state", "board") as device:
            assert device._run is not None
            before = device._tasks.data(device._run)
            for i in range(3):
                device.learn(picture("blue", i, 16), "my key")
            assert device.classes == ("cup", "door", "my key")
            assert [seen(device, colour) for colour in COLOURS] == ["cup", "door", "my key"]
            part = device._tasks.data(device._run)
            assert (part.train.size, part.test.size) == (before.train.size + 3, before.test.size)
            new = part.train.x[part.train.y == 2]
            assert (new.shape, new.dtype) == ((3, 8, 8, 3), kind)
            assert new.max() <= (255 if kind is np.uint8 else 1)
            assert not (part.test.y == 2).any()
        with edgemeta.Device(url, source, place / "state", "board") as device:
            device.forget("my key")
            assert device.classes == ("cup", "door")
