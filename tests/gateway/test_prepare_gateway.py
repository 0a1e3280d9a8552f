"""What a gateway knows of a run before any device has joined."""

import numpy as np
import pytest
from runs import TINY

from edgemeta import api
from edgemeta.config import config_from
from edgemeta.errors import ConfigError, DataError


def test_a_gateway_and_a_simulation_of_the_same_settings_are_the_same_run():
    config = config_from(TINY)
    resolved, network = api.prepare_gateway(config)
    simulated = api.prepare(config)
    assert resolved == simulated.config
    assert network.layout == simulated.network.layout


def test_a_field_gateway_needs_no_data():
    settings = {"model": {"name": "mlp", "input_shape": [3], "classes": ["still", "shaking"]}}
    config, network = api.prepare_gateway(config_from(settings | {"data": {"source": "/nowhere"}}))
    assert network.input_shape == (3,)
    assert network.outputs == 2
    assert config.model.classes == ("still", "shaking")
    for part in ({"input_shape": [3]}, {"classes": ["a", "b"]}, {"input_shape": [3], "classes": 2}):
        with pytest.raises(DataError, match="/nowhere"):
            api.prepare_gateway(config_from({"model": part, "data": {"source": "/nowhere"}}))


def test_the_classes_and_shape_come_from_the_data_and_its_pixels_are_not_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y, x_test=x, y_test=y)
    monkeypatch.setattr("edgemeta.data.Dataset.load", lambda _: pytest.fail("pixels were read"))
    settings = {"model": {"name": "mlp"}, "data": {"source": str(tmp_path / "data.npz"), "participants": 2}}
    config, network = api.prepare_gateway(config_from(settings))
    assert config.model.input_shape == network.input_shape == (8, 8, 1)
    assert config.model.classes == ("0", "1", "2")


def test_settings_that_do_not_go_together_are_refused():
    settings = {"model": {"name": "mlp", "input_shape": [3], "classes": ["a", "b"]}, "server": {"min_fit_clients": 11}}
    with pytest.raises(ConfigError, match="only 10 participants train"):
        api.prepare_gateway(config_from(settings))
