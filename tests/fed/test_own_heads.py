"""A head that stays on the device: what travels, what is kept and scored, and the bits over HTTP through restarts."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array
from photographs import photograph
from processes import SPEC, assert_same_run, write_config
from runs import TINY

import edgemeta
from edgemeta.bench.loopback import gateway
from edgemeta.config import config_from
from edgemeta.errors import ConfigError, ModelFileError
from edgemeta.fed.plan import network_of, resolve
from edgemeta.fed.private import OwnHead, load_private, private_path, save_private
from edgemeta.fed.scores import combine
from edgemeta.meta import score
from edgemeta.meta.personal_heads import OWN_HEAD, rows_of
from edgemeta.nn import Dense, Flatten, Model, ReLU
from edgemeta.nn.files import read_tensors

RNG = np.random.default_rng(0)
LABELS = (np.arange(16) % 2, np.arange(24) % 3)  # of two participants, of two and of three classes
PICTURES = [RNG.integers(0, 256, (len(y), 4, 4, 1), np.uint8) for y in LABELS]
DATA = [((x, y), (x[:9], y[:9])) for x, y in zip(PICTURES, LABELS, strict=True)]
PHASE = {"algorithm": "fedper", "rounds": 3, "local_steps": 2, "batch_size": 32, "lr": 0.1}
EVALUATION = {"every": 3, "adaptation": "sgd", "adapt_steps": 1, "support": 24, "adapt_lr": 0.05}


def fedper_by_its_definition(
    nets: list[Model], theta: Array, heads: list[Array], rounds: int
) -> tuple[Array, list[Array]]:
    """Return body and heads after some rounds of whole batches: everyone's bodies are averaged, their heads are not."""
    below = theta.size
    for _ in range(rounds):
        bodies = []
        for k, (net, x, y) in enumerate(zip(nets, PICTURES, LABELS, strict=True)):
            here = np.concatenate([theta, heads[k]])
            for _ in range(PHASE["local_steps"]):  # type: ignore[call-overload]
                here = here - 0.1 * net.loss_and_grad(here, x, y)[1]
            heads[k] = here[below:]
            bodies.append(here[:below])
        theta = (16 * bodies[0] + 24 * bodies[1]) / 40
    return theta, heads


@pytest.mark.parametrize("classes", ["own", "common"])
def test_fedper_is_what_its_paper_says(tmp_path: Path, classes: str) -> None:
    own = classes == "own"
    embedding = Model([Flatten(), Dense(6), ReLU()], (4, 4, 1), "prototypes")
    nets = [Model([*embedding.layers, Dense(count if own else 3)], (4, 4, 1)) for count in (2, 3)]
    below = embedding.layout.size
    config = {"model": {"classes": "own"}} if own else {}
    run = edgemeta.simulate(
        config | {"phases": [PHASE], "evaluation": EVALUATION},
        data=DATA,
        model=embedding if own else nets[0],
        out=tmp_path,
    )
    start = (embedding if own else nets[0]).init(0).astype(np.float64)
    theta, heads = fedper_by_its_definition(
        nets, start[:below], [net.init(0).astype(np.float64)[below:] for net in nets], 3
    )
    np.testing.assert_allclose(run.model.theta[:below], theta, rtol=0, atol=1e-6)
    assert run.model.theta[below:].tolist() == start[below:].tolist()  # the global head stays as it was
    right, adapted, count = 0, 0, 0
    for k, (net, head, (_, (x, y))) in enumerate(zip(nets, heads, DATA, strict=True)):
        kept = read_tensors(private_path(tmp_path / "participants" / f"{k:06d}", 3))[0]
        np.testing.assert_allclose(kept[OWN_HEAD], head, rtol=0, atol=1e-6)
        mine = np.concatenate([theta, head])
        further = mine - 0.05 * net.loss_and_grad(mine, PICTURES[k], LABELS[k])[1]
        right += int((net.forward(mine, x).argmax(axis=1) == y).sum())
        adapted += int((net.forward(further, x).argmax(axis=1) == y).sum())
        count += len(y)
    scores = run.history[-1]["evaluation"]
    assert scores["before"] is not None
    assert scores["before"]["accuracy"]["mean"] == pytest.approx(right / count)
    assert scores["after"]["accuracy"]["mean"] == pytest.approx(adapted / count)
    assert [record["bytes_up"] < 2 * 4 * below + 2048 for record in run.history[1:3]] == [True, True]


def test_the_head_does_not_travel() -> None:
    """Of mlp on 8 x 8 x 3, 2,010 of the 80,810 numbers are the head's: three participants, up and down."""
    sent = {}
    for name in ("fedavg", "fedper"):
        phase = {"algorithm": name, "rounds": 1, "local_steps": 1, "batch_size": 4}
        record = edgemeta.simulate(TINY | {"phases": [phase], "evaluation": {"every": 9, "adapt_steps": 1}}).history[1]
        sent[name] = record["bytes_up"]
    assert 3 * 4 * 2010 - 200 < sent["fedavg"] - sent["fedper"] < 3 * 4 * 2010 + 200


def test_new_participants_begin_with_the_head_as_it_was() -> None:
    """A held-out participant has no head of its own: before adaptation it is scored with the one of the start."""
    run = edgemeta.simulate(TINY | {"phases": [PHASE | {"rounds": 1}], "evaluation": {"every": 1, "support": 8}})
    start = edgemeta.nn.build("mlp", (8, 8, 3), 10).init(3)
    assert run.model.theta[-2010:].tolist() == start[-2010:].tolist()
    (new,) = edgemeta.api.prepare(edgemeta.api.config_of(TINY)).participants[3:]
    guesses = run.model.predict(new.test.x).argmax(axis=1)
    assert run.history[1]["evaluation_new"]["before"]["accuracy"]["mean"] == (guesses == new.test.y).mean()


def test_a_head_outlives_phases_of_others() -> None:
    """FedAvg in between neither uses it nor loses it."""
    phase = {"local_steps": 1, "batch_size": 4, "rounds": 1}
    between = [phase | {"algorithm": name} for name in ("fedper", "fedavg", "fedper")]
    few = TINY | {"evaluation": {"every": 9, "support": 4, "adapt_steps": 1}}
    run, without = (edgemeta.simulate(few | {"phases": phases}) for phases in (between, between[:2]))
    assert [sorted(beside) for beside in run.beside] == [[OWN_HEAD]] * 3 + [[]]
    assert [sorted(beside) for beside in without.beside] == [[]] * 4


def test_scores_before_adaptation_are_of_those_that_have_a_head() -> None:
    after = {"loss": 1.0, "accuracy": 0.5}
    one: dict[str, Any] = {"samples": 4, "before": None, "after": after, "grid": [], "classes": 2}
    other = one | {"before": {"loss": 0.5, "accuracy": 0.75}, "samples": 8}
    mixed = combine([one, other])
    assert mixed["before"] is not None
    assert mixed["before"]["accuracy"]["mean"] == 0.75
    assert mixed["chance"] == 0.5
    assert combine([one, one])["before"] is None


def test_a_class_that_is_gained_begins_at_zero_and_the_others_keep_their_rows(tmp_path: Path) -> None:
    head = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32)  # three features of two classes, row by row, and biases
    save_private(tmp_path, 5, 4, {OWN_HEAD: head}, ("cup", "door"))
    wider = load_private(tmp_path, 5, ("a new one", "cup", "door"))[OWN_HEAD]
    assert wider.tolist() == [0, 1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 8]
    assert load_private(tmp_path, 5, ("cup", "door"))[OWN_HEAD].tolist() == head.tolist()
    assert rows_of(wider, ("a new one", "cup", "door"), ("door",)).tolist() == [2, 4, 6, 8]
    assert OwnHead(head, ("cup", "door")).of(("door", "cup")).tolist() == [2, 1, 4, 3, 6, 5, 8, 7]
    path = private_path(tmp_path, 5)
    path.write_bytes(path.read_bytes().replace(rb"[\"cup\", \"door\"]", rb"[\"cup\", 3,    7 ]"))
    with pytest.raises(ModelFileError, match="cannot use"):
        load_private(tmp_path, 5, ("cup", "door"))


def test_own_classes_need_no_number_of_them_for_a_head_that_stays() -> None:
    field = {"model": {"name": "mlp", "classes": "own"}, "data": {"participants": 2}}
    network = network_of(resolve(config_from(field | {"phases": [PHASE]}), (8, 8, 3), ()))
    assert network.headed is None
    with pytest.raises(ConfigError, match="numbers every participant's classes, for which a head travels"):
        resolve(config_from(field | {"phases": [{"algorithm": "anil"}]}), (8, 8, 3), ())


def to_the_end(url: str, folder: Path, data: list[Any], partition: bool, grows: Any = None) -> None:
    """Have devices take part, each made anew for every step, as if it had been killed after the one before."""
    over, end_s = set[int](), time.monotonic() + 30
    while len(over) < len(data):
        assert time.monotonic() < end_s
        for k, source in enumerate(data):
            number = k if partition else None
            with edgemeta.Device(url, source, folder / f"device{k}", f"board-{k}", partition_id=number) as device:
                done = device.step(0.0)
            over |= {k} if done.kind == "over" else set()
            if grows and "trained 1 of 2 steps of round 2" in str(done):
                grows(k)
        time.sleep(0.01)


@pytest.mark.slow
def test_a_folder_that_gains_a_class_keeps_the_rows_of_the_others(tmp_path: Path) -> None:
    """In the middle of the second round, at a rate at which nothing moves: what is kept is what was after the first."""
    for k, colour in enumerate(("red", "blue")):
        photograph(tmp_path / f"data{k}", "my cup", colour)
        photograph(tmp_path / f"data{k}", "the door", "green")
    settings = TINY | {
        "model": {"name": "mlp", "classes": "own", "input_shape": [8, 8, 3]},
        "data": {"participants": 2},
        "phases": [PHASE | {"rounds": 1}, PHASE | {"rounds": 1, "lr": 1e-12}],
    }

    def grow(k: int) -> None:
        if k == 0 and not (tmp_path / "data0" / "a new thing").exists():
            photograph(tmp_path / "data0", "a new thing", "grey")

    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, url):
        to_the_end(url, tmp_path, [tmp_path / "data0", tmp_path / "data1"], partition=False, grows=grow)
    for k, classes in enumerate((["a new thing", "my cup", "the door"], ["my cup", "the door"])):
        (first, _), (second, metadata) = (read_tensors(private_path(tmp_path / f"device{k}", n)) for n in (1, 2))
        assert json.loads(metadata["classes"]) == classes
        before, after = first[OWN_HEAD].reshape(-1, 2), second[OWN_HEAD].reshape(-1, len(classes))
        np.testing.assert_allclose(after[:, -2:], before, rtol=0, atol=1e-9)
        np.testing.assert_allclose(after[:, :-2], 0, rtol=0, atol=1e-9)
        own = edgemeta.load_model(tmp_path / f"device{k}" / "personal.safetensors")
        assert list(own.classes) == classes


@pytest.mark.slow
def test_the_same_bits_over_http_with_devices_that_start_again_all_the_time(tmp_path: Path) -> None:
    """A phase of each; what was learned is scored, too: with heads of its own, and last with rates that travel."""
    phases = [PHASE | {"algorithm": name, "rounds": 1} for name in ("fedrep", "meta-sgd")]
    model, evaluation = {"name": "mlp", "classes": "own"}, EVALUATION | {"every": 1}
    data = TINY["data"] | {"participants": 2, "held_out": 0}
    settings = TINY | {"model": model, "data": data, "phases": phases, "evaluation": evaluation}
    config = write_config(tmp_path, settings)
    run = edgemeta.simulate(config, out=tmp_path / "simulated")
    with gateway(config, tmp_path / "served") as (_, url):
        to_the_end(url, tmp_path, [SPEC, SPEC], partition=True)
    assert_same_run(tmp_path / "served", tmp_path / "simulated")
    for k in range(2):
        kept = private_path(tmp_path / f"device{k}", 2)
        simulated = private_path(tmp_path / "simulated" / "participants" / f"{k:06d}", 2)
        assert kept.read_bytes() == simulated.read_bytes()
    before = [record["evaluation"]["before"] for record in run.history]
    assert [scores is None for scores in before] == [True, False, True]
    losses = []
    for k, participant in enumerate(edgemeta.api.prepare(edgemeta.api.config_of(config)).participants):
        own = edgemeta.load_model(tmp_path / f"device{k}" / "personal.safetensors")
        assert own.classes == participant.train_set.classes
        losses.append(score(own.network, own.theta, participant.test)["loss"])
    assert np.mean(losses) == pytest.approx(run.history[-1]["evaluation"]["after"]["loss"]["mean"])
