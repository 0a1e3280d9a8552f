import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import end
from runs import TINY, arrays, command_line, without_seconds

import edgemeta
from edgemeta.config import PhaseConfig, config_from
from edgemeta.errors import ConfigError, DivergedError
from edgemeta.fed.client import client_update
from edgemeta.fed.plan import resolve
from edgemeta.meta import Samples
from edgemeta.meta.learner import GradientAt, Learner
from edgemeta.meta.learners import LEARNERS
from edgemeta.nn import Dense, Flatten, Model, ReLU
from edgemeta.nn.files import read_tensors


class Killed(BaseException):
    """What no `except Exception` may stop, as a kill."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run: its folder and result."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, edgemeta.simulate(TINY, out=folder)


def same(folder, undisturbed):
    reference, result = undisturbed
    assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert without_seconds(history) == without_seconds(result.history)
    assert (folder / "summary.json").exists()


def test_the_run_directory_is_as_promised(undisturbed):
    folder, result = undisturbed
    names = {path.name for path in folder.iterdir()}
    assert {"run.toml", "history.jsonl", "model.safetensors", "summary.json"} <= names
    assert [record["round"] for record in result.history] == [0, 1, 2, 3, 4]
    assert [record["phase"] for record in result.history] == ["start", *["meta-training"] * 2, *["federated"] * 2]
    assert [record["algorithm"] for record in result.history][1:] == ["fomaml", "fomaml", "fedavg", "fedavg"]
    assert ["evaluation" in record for record in result.history] == [True, False, True, False, True]
    keys = ("seconds", "participants", "failures", "bytes_down", "bytes_up", "gradient_evaluations", "train_loss")
    for record in result.history:
        assert set(keys) <= set(record)
    # three participants, two steps each: fomaml takes two gradients a step, fedavg one
    assert [record["gradient_evaluations"] for record in result.history] == [0, 12, 12, 6, 6]
    evaluation = result.history[2]["evaluation"]
    assert set(evaluation["after"]["accuracy"]) == {"mean", "p10", "p50", "p90"}
    assert [(cell["steps"], cell["support"]) for cell in evaluation["grid"]] == [(1, 4)]
    assert result.history[4]["evaluation_new"]["before"].keys() == {"accuracy", "loss"}
    assert read_tensors(folder / "model.safetensors")[1]["round"] == "4"
    assert result.summary == json.loads((folder / "summary.json").read_text())


def test_message_bytes_are_counted(undisturbed):
    _, result = undisturbed
    parameters = 4 * result.model.network.layout.size
    record = result.history[1]  # three participants, without evaluation
    assert 3 * parameters < record["bytes_down"] < 3 * (parameters + 2000)
    assert 3 * parameters < record["bytes_up"] < 3 * (parameters + 2000)


def test_the_configuration_in_the_folder_runs_again(undisturbed, tmp_path):
    folder, _ = undisturbed
    edgemeta.simulate(folder / "run.toml", out=tmp_path)
    same(tmp_path, undisturbed)


def test_several_processes_give_the_same_bits(undisturbed, tmp_path):
    edgemeta.simulate(TINY, out=tmp_path, jobs=2)
    same(tmp_path, undisturbed)


def test_a_failure_in_another_process_is_raised_here():
    with pytest.raises(DivergedError, match="lower lr"):
        edgemeta.simulate(TINY | {"phases": [{"lr": 1e20, "rounds": 1, "batch_size": 4}]}, jobs=2)


def test_another_seed_is_another_run(undisturbed):
    _, result = undisturbed
    other = edgemeta.simulate(TINY | {"seed": 4})
    assert not np.array_equal(other.model.theta, result.model.theta)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_any_rename_it_ends_with_the_same_bits(undisturbed, tmp_path, monkeypatch, seed):
    replace, left, kills, moments = os.replace, 0, 0, random.Random(seed)

    def killing(*names, **folders):
        nonlocal left
        left -= 1
        if left == 0 and kills % 2:
            raise Killed
        replace(*names, **folders)
        if left == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", killing)
    while True:
        left = moments.randint(1, 9)
        try:
            edgemeta.simulate(TINY, out=tmp_path)
            break
        except Killed:
            kills += 1
    assert kills > 5
    same(tmp_path, undisturbed)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(undisturbed, tmp_path):
    folder, _ = undisturbed
    command = [sys.executable, "-m", "edgemeta", "simulate", "--config", folder / "run.toml", "--out", tmp_path]
    moments = random.Random(1)
    for _ in range(12):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.25, 0.6))
        process.kill()
        process.wait()
    assert edgemeta_exits(command) == 0
    same(tmp_path, undisturbed)


def edgemeta_exits(command):
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(tmp_path, number):
    command = [sys.executable, "-m", "edgemeta", "simulate", "--rounds", "100000", "--data"]
    command += ["synthetic:samples=120,size=8", "--participants", "2", "--set", "model.name=mlp", "--out", tmp_path]
    # An interrupt may fall between a file's opening and its `with`, which Python would warn of if it were asked to.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet)
    try:
        while "round 1/" not in process.stderr.readline():
            pass
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == 130
    assert "same command to go on" in rest
    assert "Traceback" not in rest
    assert (tmp_path / "model.safetensors").exists()


def test_a_finished_run_says_so(undisturbed):
    folder, _ = undisturbed
    again = command_line("simulate", "--config", folder / "run.toml", "--out", folder)
    assert again.returncode == 0
    assert "finished" in again.stderr
    assert "round" not in again.stderr


def test_a_diverged_run_keeps_the_last_good_model(tmp_path):
    wild = {"lr": 1e18, "rounds": 3, "local_steps": 3, "batch_size": 4}
    with pytest.raises(DivergedError, match="lower lr"):
        edgemeta.simulate(TINY | {"phases": [wild]}, out=tmp_path)
    assert np.isfinite(edgemeta.load_model(tmp_path / "model.safetensors").theta).all()
    assert not (tmp_path / "summary.json").exists()


def test_ones_own_arrays_and_network(tmp_path):
    network = Model([Flatten(), Dense(5), ReLU(), Dense(3)], (4, 4, 1))
    data = [(arrays(12, seed=k), arrays(6, seed=9 + k)) for k in range(3)]
    settings = {"phases": [{"rounds": 1, "local_steps": 2}], "data": {"held_out": 1}}
    result = edgemeta.simulate(settings, data=data, model=network, out=tmp_path)
    assert result.history[1]["participants"] == 2
    assert result.model.classes == ("0", "1", "2")
    assert edgemeta.load_model(tmp_path / "model.safetensors").network.describe() == network.describe()


def test_noise_is_not_silently_left_out_of_ones_own_arrays():
    with pytest.raises(ConfigError, match="noise"):
        edgemeta.simulate({"data": {"label_noise": 0.5}}, data=[(arrays(12), arrays(6))])


def test_a_run_starts_from_a_model_file(undisturbed, tmp_path):
    folder, result = undisturbed
    one = {"phases": [{"rounds": 1, "local_steps": 1, "batch_size": 4}]}
    started = edgemeta.simulate(TINY | one, init=folder / "model.safetensors")
    assert started.history[0]["evaluation"]["before"] == result.history[4]["evaluation"]["before"]
    with pytest.raises(ConfigError, match="layout"):
        edgemeta.simulate(TINY | one | {"model": {"name": "cnn-small"}}, init=folder / "model.safetensors")


def test_client_update_is_pure():
    network = Model([Flatten(), Dense(3)], (4, 4, 1))
    theta, data = network.init(0), Samples(*arrays(12))
    kept = theta.copy()
    recipe = PhaseConfig(local_steps=3, batch_size=4, lr=0.1)

    def once():
        return client_update(network, recipe, {"theta": theta}, {}, data, lambda step: np.random.default_rng([step]))

    first, second = once(), once()
    assert np.array_equal(first.shared["theta"], second.shared["theta"])
    assert np.array_equal(theta, kept)
    assert first.samples == 12
    assert first.gradient_evaluations == 3


def test_private_vectors_stay_and_advance_once_a_round(tmp_path, monkeypatch):
    """A learner that counts its own steps in a vector that never travels."""

    def counting(model, vectors, batches, recipe, workspace):
        return [], {"theta": GradientAt(vectors["theta"], batches[0]), "count": np.full(1, -1 / recipe.lr, np.float32)}

    start = {"count": lambda _: np.zeros(1, np.float32)}
    monkeypatch.setitem(LEARNERS, "counting", Learner(counting, lambda _: 1, lambda _: 1, "none", start))
    settings = TINY | {"phases": [{"algorithm": "counting", "rounds": 3, "local_steps": 2, "batch_size": 4}]}
    replace, calls = os.replace, 0

    def killing(*names, **folders):
        nonlocal calls
        calls += 1
        if calls in (9, 14, 20, 23):
            raise Killed
        replace(*names, **folders)

    monkeypatch.setattr(os, "replace", killing)
    for _ in range(5):
        try:
            edgemeta.simulate(settings, out=tmp_path)
            break
        except Killed:
            pass
    for k in range(3):
        folder = tmp_path / "participants" / f"{k:06d}"
        assert read_tensors(folder / "private-000003.safetensors")[0]["count"].tolist() == [6.0]
    assert "count" not in read_tensors(tmp_path / "model.safetensors")[0]


def test_what_a_round_begins_with_is_there_until_it_ends(tmp_path, monkeypatch):
    """A learner that descends along 1 + what it has moved in this round: by .5, then by .5 * (1 - .5)."""

    def slowing(model, vectors, batches, recipe, workspace):
        return [0.0], {"theta": 1 + vectors["theta"] - vectors["start"]}

    row = Learner(slowing, lambda _: 1, lambda _: 0, "none", begun={"start": lambda shared: shared["theta"]})
    monkeypatch.setitem(LEARNERS, "slowing", row)
    settings = TINY | {"phases": [{"algorithm": "slowing", "rounds": 3, "local_steps": 2, "lr": 0.5}]}
    model = edgemeta.simulate(settings, out=tmp_path).model
    np.testing.assert_allclose(model.theta, model.network.init(3) - 3 * 0.75, rtol=0, atol=1e-6)
    assert not [path for path in (tmp_path / "participants").rglob("*") if path.is_file()]  # nothing stays


def test_what_a_run_cannot_be_is_said_all_at_once():
    settings = TINY | {"phases": [{"algorithm": "fedvag"}], "server": {"optimizer": "adma", "min_fit_clients": 9}}
    with pytest.raises(ConfigError) as refused:
        resolve(config_from(settings), (8, 8, 3), ("a", "b"))
    for part in ("did you mean 'fedavg'", "unknown optimizer 'adma'", "min_fit_clients is 9, but only 3"):
        assert part in str(refused.value)
    settings = TINY | {"phases": [{"algorithm": "fedvag"}, {"algorithm": "xyz"}]}
    with pytest.raises(ConfigError) as refused:
        resolve(config_from(settings), (8, 8, 3), ("a", "b"))
    every = f"known are {', '.join(LEARNERS)}"
    near, far = f"did you mean 'fedavg'?; {every}", every
    assert str(refused.value) == f"unknown algorithm 'fedvag': {near}; unknown algorithm 'xyz': {far}"
