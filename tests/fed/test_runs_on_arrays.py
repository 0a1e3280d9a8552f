"""A run on one's own arrays: what the arrays decide is looked at again, and what is left out is in the result."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import TINY, arrays

import edgemeta
from edgemeta.config import DataConfig, RunConfig
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.own import own_part
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


X, Y = arrays(40, classes=2)


def part(given, classes=("cat", "dog")):
    own = own_part(given, (4, 4, 1), classes, DataConfig(), 0, 0, cut=False)
    return own.train.x, own.train.y.tolist()


@pytest.mark.parametrize(
    "given",
    [
        (X, NAMES[Y]),
        (X, np.eye(2)[Y]),
        (X, Y[:, np.newaxis]),
        (X.astype(np.int64), Y),
        (X.tolist(), Y.tolist()),
        lambda: (X, NAMES[Y].tolist()),
    ],
)
def test_a_devices_arrays_go_through_the_same_gate(given):
    x, y = part(given)
    expected, labels = part((X, Y))
    assert x.tobytes() == expected.tobytes()
    assert y == labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((X.astype(np.float32), Y), "floats from 0 to 255"),
        ((X, np.where(Y == 0, np.nan, 1)), "label 0 is nan"),
        ((X, ["zebra"] * 40), "does not know zebra: its classes are cat, dog"),
        ((X, Y, X, Y), r"data is tuple of 4: expected a SPEC, \(x, y\), or \(\(x_train"),
        (X[:2], "data is ndarray"),
        ({"x": X, "y": Y}, "data is dict"),
        (lambda: None, "data is NoneType"),
        ((pair for pair in (X, Y)), "data is generator"),
        ((Path("a.npz"), Y), "'a.npz' is no array"),
        (((X, Y), (X[:, :2], Y)), "training samples of shape"),
        (((X, Y), (X[:0], Y[:0])), "40 training and 0 test samples"),
        ((X[:0], Y[:0]), "the data is empty"),
    ],
)
def test_and_what_they_are_not_is_said(given, said):
    with pytest.raises(DataError, match=said):
        part(given)


def test_a_devices_whole_numbers_are_no_labels_where_names_are_other_numbers():
    with pytest.raises(DataError, match="give names, as text"):
        part((X, Y), ("3", "7"))
    assert part((X, np.array(["3", "7"])[Y]), ("3", "7"))[1] == part((X, Y))[1]


def test_a_device_may_have_one_class():
    assert set(part((X, ["dog"] * 40))[1]) == {1}
    assert set(part(((X, 0 * Y), (X, 0 * Y)))[1]) == {0}


def test_a_part_that_is_cut_says_what_is_left_out(caplog):
    cutting = DataConfig(participants=3, partition="iid")
    own_part(((X, Y), (X, Y)), (4, 4, 1), ("cat", "dog"), cutting, 0, 1, cut=True)
    assert "left out, to make participants equal: 1 training and 1 test samples" in caplog.text
