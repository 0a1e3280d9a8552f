"""Simulations that an earlier commit began: they open, keep what is done, and go on to the right bits.

The right bits are worked out here, from the last model that the fixture holds: another processor trains to others.
"""

import json

import numpy as np
import pytest
from kept import SHOWING, history_in, mark, next_model, scored, tensors_in, trained, unpack, vector_in
from runs import command_line

import edgemeta
from edgemeta.api import config_of, prepare
from edgemeta.meta.learners import LEARNERS


def model_in(run):
    return vector_in((run / "model.safetensors").read_bytes())


def losses_in(scores):
    return [each["loss"] for each in (scores["before"], scores["after"], *scores["grid"])]


def assert_went_on(run, kept, like):
    """The kept records are as they were, and the later ones say all that an earlier run's do."""
    records = history_in(run)
    assert records[: len(kept)] == kept
    for record, other in zip(records, like, strict=True):
        assert other.keys() <= record.keys()
        assert (record["round"], record["phase"]) == (other["round"], other["phase"])
    assert json.loads((run / "summary.json").read_text())["rounds"] == records[-1]["round"]


def test_training_and_scoring_come_to_what_they_did(tmp_path):
    """But for the last bits, which are the processor's: data, draws, steps and adaptation are the same ones."""
    house = unpack("household-trained", tmp_path / "trained") / "gateway"
    prepared, theta = prepare(config_of(house / "run.toml")), model_in(house)
    for k in (0, 2):
        (path,) = house.rglob(f"update-00000{k}.safetensors")
        update, kept = trained(prepared, theta, 2, k), vector_in(path.read_bytes())
        assert np.linalg.norm(update.shared["theta"] - kept) < 1e-3 * np.linalg.norm(kept)
        metrics = json.loads(tensors_in(path.read_bytes())[0]["metrics"])
        assert update.loss == pytest.approx(metrics["loss"], rel=1e-4)

    house = unpack("household-evaluation", tmp_path / "evaluation") / "gateway"
    (path,) = house.rglob("evaluation-000000.json")
    kept, scores = json.loads(path.read_text())["metrics"], scored(prepared, model_in(house), 2, 0)
    assert scores["samples"] == kept["samples"]
    for was, now in zip(losses_in(kept), losses_in(scores), strict=True):
        assert now == pytest.approx(was, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "done"), [("simulation-half", 2), ("simulation-mid-round", 1)])
def test_a_killed_simulation_goes_on_to_the_right_bits(tmp_path, name, done):
    run = unpack(name, tmp_path) / "run"
    whole = history_in(unpack("simulation-finished", tmp_path / "whole"))
    kept, theta, prepared = history_in(run), model_in(run), prepare(config_of(run / "run.toml"))
    for update in run.rglob("update-*.safetensors"):
        mark(update, "theta")  # it is made again, and counts for nothing
    assert [record["round"] for record in kept] == list(range(done + 1))
    for number in range(done + 1, 5):
        before, theta = theta, next_model(prepared, theta, number, 3)

    finished = command_line("simulate", "--config", run / "run.toml", "--out", run)
    assert finished.returncode == 0, finished.stderr
    assert model_in(run).tobytes() == theta.tobytes()
    assert_went_on(run, kept, whole)

    last, updates = history_in(run)[-1], [trained(prepared, before, 4, k) for k in range(3)]
    loss = np.average([update.loss for update in updates], weights=[update.samples for update in updates])
    assert (last["participants"], last["failures"]) == (3, 0)
    assert last["gradient_evaluations"] == 3 * 4  # of plain SGD, one each of four steps
    assert last["train_loss"] == pytest.approx(loss)
    for key, who in (("evaluation", (0, 1, 2)), ("evaluation_new", (3,))):
        scores = [scored(prepared, theta, 4, k) for k in who]
        for when in ("before", "after"):
            for metric in ("loss", "accuracy"):
                mean = np.average([s[when][metric] for s in scores], weights=[s["samples"] for s in scores])
                assert last[key][when][metric]["mean"] == pytest.approx(mean)


def test_a_finished_simulation_stays_as_it_is(tmp_path):
    run = unpack("simulation-finished", tmp_path) / "run"
    names = ("model.safetensors", "history.jsonl", "summary.json", "run.toml")
    before = [(run / name).read_bytes() for name in names]
    again = command_line("simulate", "--config", run / "run.toml", "--out", run)
    assert again.returncode == 0
    assert "finished" in again.stderr
    assert [(run / name).read_bytes() for name in names] == before


def test_data_that_lies_in_a_file(tmp_path, monkeypatch):
    run, kept = unpack("simulation-from-a-file", tmp_path) / "run", history_in(tmp_path)
    monkeypatch.chdir(tmp_path)  # the configuration says data.npz
    prepared, theta = prepare(config_of(run / "run.toml")), model_in(run)
    for number in (3, 4):
        theta = next_model(prepared, theta, number, 2)
    edgemeta.simulate(run / "run.toml", out=run)
    assert model_in(run).tobytes() == theta.tobytes()
    assert history_in(run)[: len(kept)] == kept


def test_ones_own_network_and_arrays(tmp_path):
    run, kept = unpack("simulation-own-network", tmp_path) / "run", history_in(tmp_path)
    arrays = [*np.load(tmp_path / "data.npz").values()]
    data = [((arrays[i], arrays[i + 1]), (arrays[i + 2], arrays[i + 3])) for i in range(0, 12, 4)]
    network = edgemeta.load_model(run / "model.safetensors").network  # its layers are in the file
    theta = next_model(prepare(config_of(run / "run.toml"), data, network), model_in(run), 2, 3)
    edgemeta.simulate(run / "run.toml", data=data, model=network, out=run)
    assert model_in(run).tobytes() == theta.tobytes()
    assert history_in(run)[: len(kept)] == kept


def test_private_vectors_of_participants(tmp_path, monkeypatch):
    """Rate 1/4, three steps a round: step i of the run takes i/4, so that round 3 takes (6 + 7 + 8) / 4."""
    monkeypatch.setitem(LEARNERS, "counting", SHOWING)
    run = unpack("simulation-private", tmp_path) / "run"
    assert model_in(run).tolist() == [-(0 + 1 + 2 + 3 + 4 + 5) / 4] * 8
    network = edgemeta.load_model(run / "model.safetensors").network
    samples = (np.zeros((4, 3), np.float32), np.arange(4) % 2)
    edgemeta.simulate(run / "run.toml", data=[(samples, samples)] * 2, model=network, out=run)
    assert model_in(run).tolist() == [-(0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8) / 4] * 8
