"""A run on one's own arrays: what the arrays decide is looked at again, and what is left out is in the result."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from runs import TINY, arrays

import edgemeta
from edgemeta.config import DataConfig, RunConfig
from edgemeta.errors import ConfigError, DataError
from edgemeta.nn import Dense, Flatten, Model

SHORT = {"model": {"name": "mlp"}, "phases": [{"rounds": 1, "local_steps": 1}]}
DATA = [(arrays(12, seed=k), arrays(6, seed=9 + k)) for k in range(2)]
NAMES = np.array(["cat", "dog", "eel"])


@pytest.fixture
def at_once():
    """What was an endless run ends as a failure."""

    def late(*_):
        raise TimeoutError("it went on and on")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("held_out", [2, 3, 100])
def test_more_held_out_than_the_arrays_have_participants_is_refused_at_once(held_out):
    said = f"data.held_out is {held_out} of 2 participants: leave one or more to train on"
    with pytest.raises(ConfigError, match=said):
        edgemeta.simulate(SHORT | {"data": {"held_out": held_out, "participants": 1000}}, data=DATA)


@pytest.mark.usefixtures("at_once")
def test_presets_and_records_are_looked_at_too():
    with pytest.raises(ConfigError, match="held_out is 2 of 2"):
        edgemeta.simulate("demo", data=DATA)
    by_hand = replace(RunConfig(), data=DataConfig(held_out=10))
    for data in (None, DATA):
        with pytest.raises(ConfigError, match="held_out is 10 of"):
            edgemeta.simulate(by_hand, data=data)
    with pytest.raises(ConfigError, match="seed is -1"):
        edgemeta.simulate(replace(RunConfig(), seed=-1), data=DATA)


@pytest.mark.parametrize("name", ["min_available_clients", "min_fit_clients"])
def test_so_is_every_setting_that_counts_participants(name):
    for count, held_out in ((3, 0), (2, 1)):
        with pytest.raises(ConfigError, match=f"server.{name} is {count}, but only {2 - held_out} participants train"):
            edgemeta.simulate(SHORT | {"data": {"held_out": held_out}, "server": {name: count}}, data=DATA)


@pytest.mark.parametrize("config", [None, [], ["demo"], 3, b"demo", {1: 2}, RunConfig])
def test_what_is_no_configuration(config):
    with pytest.raises(ConfigError):
        edgemeta.simulate(config)


def test_labels_of_any_form_give_the_same_run():
    plain = edgemeta.simulate(SHORT, data=DATA)
    one_hot = [tuple((x / 255, np.eye(3)[y]) for x, y in parts) for parts in DATA]
    whole = [tuple((x.astype(np.int64), y[:, np.newaxis]) for x, y in parts) for parts in DATA]
    assert edgemeta.simulate(SHORT, data=whole).model.theta.tobytes() == plain.model.theta.tobytes()
    assert edgemeta.simulate(SHORT, data=one_hot).model.classes == plain.model.classes == ("0", "1", "2")


def test_classes_have_the_labels_names_or_those_of_the_settings():
    named = [tuple((x, NAMES[y]) for x, y in parts) for parts in DATA]
    settings = SHORT | {"model": {"name": "mlp", "classes": ["cat", "dog", "eel"]}}
    by_labels, by_settings = edgemeta.simulate(SHORT, data=named), edgemeta.simulate(settings, data=DATA)
    assert by_labels.model.classes == by_settings.model.classes == ("cat", "dog", "eel")
    assert by_labels.model.theta.tobytes() == by_settings.model.theta.tobytes()
    more = SHORT | {"model": {"name": "mlp", "classes": ["cat", "dog", "eel", "fox"]}}
    assert edgemeta.simulate(more, data=named).model.predict(DATA[0][0][0]).shape == (12, 4)


def test_ones_own_network_and_the_data_must_agree():
    def network(outputs, shape=(4, 4, 1)):
        return Model([Flatten(), Dense(outputs)], shape)

    assert edgemeta.simulate(SHORT, data=DATA, model=network(5)).model.classes == ("0", "1", "2", "3", "4")
    named = [tuple((x, NAMES[y]) for x, y in parts) for parts in DATA]
    for data, outputs in ((DATA, 2), (named, 4)):
        with pytest.raises(ConfigError, match=f"the network has {outputs} outputs: the data has 3 classes"):
            edgemeta.simulate(SHORT, data=data, model=network(outputs))
    with pytest.raises(ConfigError, match=r"the network takes \(8, 2, 1\): the data has samples of shape \(4, 4, 1\)"):
        edgemeta.simulate(SHORT, data=DATA, model=network(3, (8, 2, 1)))


def test_a_label_of_two_million_writes_nothing(tmp_path):
    x, y = arrays(12)
    with pytest.raises(DataError, match="labels must be below 10000"):
        edgemeta.simulate(SHORT, data=[((x, 1_000_000 * y), (x, y))], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_left_out_is_in_the_summary(tmp_path):
    settings = TINY | {"data": {"source": "synthetic:samples=121,size=8", "participants": 4, "partition": "iid"}}
    result = edgemeta.simulate(settings, out=tmp_path)  # and 24 test samples
    why = ["left out, to make participants equal: 1 training and 0 test samples"]
    assert result.summary["left_out"] == {"train": 1, "test": 0, "why": why}
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary
    assert edgemeta.simulate(settings, out=tmp_path).summary == result.summary


def test_classes_that_only_one_side_of_the_arrays_has_are_in_the_summary():
    (x, y), test = DATA[0]
    left = edgemeta.simulate(SHORT, data=[((x, np.minimum(y, 1)), test)]).summary["left_out"]
    said = "2 test samples are of 2, which the training data lacks: they are scored, and not learned"
    assert left == {"train": 0, "test": 0, "why": [said]}


def test_a_participant_may_have_one_class_and_a_run_may_not():
    one, other = (((x, 0 * y + k), (x, 0 * y + k)) for k, ((x, y), _) in enumerate(DATA))
    assert edgemeta.simulate(SHORT, data=[one, other]).model.classes == ("0", "1")
    for data in ([other], [other, other]):
        with pytest.raises(DataError, match=r"all samples are of one class \(1\): expected two or more"):
            edgemeta.simulate(SHORT, data=data)
