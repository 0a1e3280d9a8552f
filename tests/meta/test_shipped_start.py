"""The embedding that ships: what is called "start", and that it is in the package."""

import fnmatch
import tomllib
from pathlib import Path

import numpy as np
import pytest

import edgemeta
from edgemeta import api
from edgemeta.cli.run import resolved
from edgemeta.config import PRESETS, config_from
from edgemeta.errors import ConfigError
from edgemeta.meta import TrainedModel
from edgemeta.nn import build

ROOT = Path(__file__).parents[2]
OWN = {"model": {"name": "conv4", "classes": "own", "input_shape": [32, 32, 3]}}
EMBEDS = [{"algorithm": "protonet"}]


def test_it_is_an_embedding_of_pictures_and_small() -> None:
    start = edgemeta.load_model("start")
    assert (start.network.name, start.network.input_shape, start.classes) == ("conv4", (32, 32, 3), ())
    assert start.network.embeds
    assert start.network.layout.size == 28_640  # 9 * 3 * 32 + 32 and three times 9 * 32 * 32 + 32
    assert (PRESETS / "start.safetensors").stat().st_size < 150_000
    assert {path.name for path in PRESETS.iterdir()} >= {"start.safetensors", "start.toml"}
    assert start.network.layout == api.prepare_gateway(config_from(OWN | {"phases": EMBEDS}))[1].layout


def test_it_is_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["edgemeta"]
    assert any(fnmatch.fnmatch("presets/start.safetensors", pattern) for pattern in patterns)


def test_a_file_of_that_name_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("start").mkdir()  # a run directory, say
    shipped = edgemeta.load_model("start")
    assert shipped.theta.size == 28_640
    Path("start").rmdir()
    network = build("mlp", (4,), 2)
    TrainedModel(network, network.init(0), ("a", "b")).save("start")
    for name in ("start", Path("start"), "./start"):
        assert edgemeta.load_model(name).classes == ("a", "b")


def test_a_run_can_begin_with_it() -> None:
    settings = config_from(OWN | {"phases": EMBEDS})
    asked, network, _ = resolved(settings, Path("start"))  # as `server` and `run new` do
    theta = api.initial(network, asked.seed, "start", asked.model.names)
    assert theta.tobytes() == edgemeta.load_model("start").theta.tobytes()
    config, network = api.own_network(config_from({"model": {"name": "custom"}, "phases": EMBEDS}), "start", None)
    assert network is not None
    assert (config.model.classes, config.model.input_shape) == ("own", (32, 32, 3))
    common = build("conv4", (32, 32, 3), 10)
    with pytest.raises(ConfigError, match="start holds a model of layout"):
        api.initial(common, 0, "start", tuple("abcdefghij"))


def test_one_picture_of_each_makes_classes() -> None:
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (20, 235, 30, 225)])
    own = edgemeta.load_model("start").adapt(flat[:2], ["dark", "light"])
    assert own.classes == ("dark", "light")
    assert own.predict(flat[2:]).argmax(axis=1).tolist() == [0, 1]
