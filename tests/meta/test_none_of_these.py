"""A sample that is like none of the classes: the distance that says so, where it is kept, and what has none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import command_line

import edgemeta
from edgemeta.config import config_from
from edgemeta.data import open_data
from edgemeta.errors import ConfigError, InputError, ModelFileError
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.nn.prototypes import beyond

SMALL = {"source": "synthetic:samples=200,size=8"}
ON_A_LINE = np.array([[0.0], [2.0], [10.0], [14.0]], np.float32)


@pytest.mark.parametrize(("rate", "squared"), [(0.7, 4.0), (0.45, 16.0), (0.05, 16.0)])
def test_the_distance_that_a_share_of_samples_goes_beyond(rate: float, squared: float) -> None:
    # Each without itself: 0 is 2 from its class's other one, and so is 2; 10 and 14 are 4 from one another, and farther
    # from 1. Of four, the share beyond the second is two fifths or more, and beyond the last a fifth.
    assert beyond(ON_A_LINE, np.array([0, 0, 1, 1]), rate) == squared


def test_one_sample_of_each_class_tells_nothing() -> None:
    assert beyond(ON_A_LINE[1:3], np.array([0, 1]), 0.1) is None
    assert beyond(ON_A_LINE[:3], np.array([0, 0, 1]), 0.1) == 4  # and where it is alone, it is no sample of a distance


def of_classes(classes: slice, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    data = getattr(open_data("synthetic:samples=1200,seed=3"), part)
    names = sorted(data.classes)[classes]
    x, y = data.load()
    wanted = np.isin(y, [data.classes.index(name) for name in names])
    return x[wanted], np.array(data.classes)[y[wanted]]


def test_as_many_of_its_own_are_called_none_as_were_asked_for(tmp_path: Path) -> None:
    start, (x, names) = edgemeta.load_model("start"), of_classes(slice(3))
    own = start.adapt(x, names, reject=0.2)
    new, _ = of_classes(slice(3), "test")
    assert len(x) > 300
    assert 0.08 < own.unlike(new).mean() < 0.32  # 0.2, and three times what chance does to some 70 pictures
    assert own.unlike(new[0]).shape == (1,)

    z = start.network.forward(start.theta, new)  # by the definition, and not by the layer that was made of it
    at = start.network.forward(start.theta, x)
    centres = np.stack([at[names == name].mean(axis=0) for name in sorted(set(names))])
    nearest = np.square(z[:, None] - centres).sum(axis=2).min(axis=1)
    assert own.reject is not None
    clear = abs(nearest / own.reject - 1) > 1e-3
    assert ((nearest > own.reject) == own.unlike(new))[clear].all()

    own.save(tmp_path / "own.safetensors")
    again = edgemeta.load_model(tmp_path / "own.safetensors")
    assert (again.scale, again.reject) == (own.scale, own.reject)
    assert (again.unlike(new) == own.unlike(new)).all()


def test_nothing_is_called_none_unless_asked_for() -> None:
    x, names = of_classes(slice(2))
    plain = edgemeta.load_model("start").adapt(x[:40], names[:40])
    assert plain.reject is None
    assert not plain.unlike(np.zeros((2, 32, 32, 3), np.uint8)).any()


def test_what_has_no_distances_is_refused() -> None:
    x, names = of_classes(slice(2))
    start = edgemeta.load_model("start")
    for how in ({"adaptation": "sgd"}, {"adaptation": "ridge"}, {"steps": 3}):
        with pytest.raises(ConfigError, match=r"reject 0\.1 is a distance to prototypes: .* has none; take "):
            start.adapt(x[:20], names[:20], reject=0.1, **how)
    for wrong in (-0.1, 0.6, float("nan")):
        with pytest.raises(InputError, match=r"expected a share from 0 to 0\.5"):
            start.adapt(x[:20], names[:20], reject=wrong)
    with pytest.raises(ConfigError, match=r"reject 0\.05 is .* adaptation 'sgd' has none"):
        edgemeta.simulate(
            {
                "data": {"source": "synthetic:samples=200,size=8"},
                "model": {"name": "mlp"},
                "evaluation": {"reject": 0.05},
            }
        )
    with pytest.raises(ConfigError, match=r"evaluation\.reject"):
        config_from({"evaluation": {"reject": 0.9}})


@pytest.mark.parametrize(("key", "value"), [("scale", "0"), ("scale", "nan"), ("reject", "-1"), ("reject", "much")])
def test_a_file_with_a_threshold_that_is_none_is_refused(tmp_path: Path, key: str, value: str) -> None:
    x, names = of_classes(slice(2))
    path = tmp_path / "own.safetensors"
    edgemeta.load_model("start").adapt(x[:20], names[:20], reject=0.1).save(path)
    tensors, metadata = read_tensors(path)
    path.write_bytes(b"".join(map(bytes, encode_tensors(tensors, {**metadata, key: value}))))
    with pytest.raises(ModelFileError, match=r"cannot use .*own\.safetensors"):
        edgemeta.load_model(path)


def test_from_a_shell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("green", (40, 200, 40))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(25):
            noise = rng.integers(-10, 10, (32, 32, 3))
            Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(tmp_path / "mine" / name / f"{i}.png")
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "noise.png")
    made = command_line("adapt", "start", "--data", "mine", "--reject", "0.1", "--out", "own.safetensors", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    ask = ("predict", "own.safetensors", "noise.png", "mine/red/0.png")
    said = command_line(*ask, cwd=tmp_path).stdout.splitlines()
    assert said[0].startswith("noise.png: none of these; the nearest: ")
    assert said[1].startswith("mine/red/0.png: red ")
    told = json.loads(
        command_line("predict", "own.safetensors", "noise.png", "mine/red/0.png", "--json", cwd=tmp_path).stdout
    )
    assert told["noise.png"][0]["unlike"] is True
    assert "unlike" not in told["mine/red/0.png"][0]
