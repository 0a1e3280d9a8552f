"""Every device its own classes: runs, devices, commands, and that nobody else hears what they are called."""

import json
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateways import wait_for
from photographs import COLOURS, photograph
from processes import SPEC, assert_same_run, end, write_config
from runs import TINY, command_line

import edgemeta
from edgemeta.bench.loopback import gateway, records, start
from edgemeta.config import config_from
from edgemeta.data.shapes import SHAPES
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.description import Description
from edgemeta.fed.messages import admit_evaluation
from edgemeta.fed.refusal import Refused
from edgemeta.fed.runs import run_of
from edgemeta.meta import TrainedModel
from edgemeta.nn import Dense, Flatten, Model, ReLU
from edgemeta.nn.files import read_tensors

OWN: dict[str, Any] = TINY | {
    "model": {"name": "mlp", "classes": "own"},
    "phases": [{"algorithm": "protonet", "rounds": 3, "local_steps": 3, "batch_size": 12, "lr": 0.1}],
    "evaluation": {"every": 2, "support": 20, "grid": [[0, 6], [2, 20]]},
}


def in_turn(*devices: edgemeta.Device, grows: Callable[[], None]) -> None:
    """Step devices to the end of their run; what `grows` does comes after the first update that is delivered."""
    over, grown, end_s = set[int](), False, time.monotonic() + 60
    while len(over) < len(devices):
        assert time.monotonic() < end_s
        for k, device in enumerate(devices):
            done = device.step(60.0)
            over |= {k} if done.kind == "over" else set()
            if not grown and "delivered the update" in str(done):
                grown = True
                grows()
        time.sleep(0.02)


def test_a_run_of_own_classes() -> None:
    result = edgemeta.simulate(OWN)
    first, last = result.history[0], result.history[-1]
    for key in ("evaluation", "evaluation_new"):
        assert first[key]["before"] is None  # type: ignore[literal-required]
        assert last[key]["chance"] == pytest.approx(1 / 3)  # type: ignore[literal-required]
        assert 0 <= last[key]["after"]["accuracy"]["mean"] <= 1  # type: ignore[literal-required]
    assert result.history[1]["train_loss"] > result.history[3]["train_loss"]  # type: ignore[operator]
    assert result.model.classes == ()
    assert result.model.network.outputs == 200
    with pytest.raises(DataError, match="adapt it first"):
        result.model.predict(np.zeros((8, 8, 3), np.uint8))


def test_a_participants_classes_are_those_of_its_part_in_an_order_of_its_own() -> None:
    prepared = edgemeta.api.prepare(config_from(OWN | {"data": TINY["data"] | {"participants": 12, "held_out": 0}}))
    orders = [participant.train_set.classes for participant in prepared.participants]
    assert {len(names) for names in orders} == {3}
    for participant in prepared.participants:
        assert set(participant.train.y.tolist()) == {0, 1, 2}
        assert set(participant.test.y.tolist()) <= {0, 1, 2}
    usual = list(SHAPES)
    assert any(list(names) != sorted(names, key=usual.index) for names in orders)
    named = edgemeta.api.prepare(config_from(TINY | {"data": TINY["data"] | {"participants": 12, "held_out": 0}}))
    for ours, theirs in zip(prepared.participants, named.participants, strict=True):
        assert ours.train.x.tobytes() == theirs.train.x.tobytes()
        for mine, common in zip(ours.train.y, theirs.train.y, strict=True):
            assert ours.train_set.classes[mine] == theirs.train_set.classes[common]


def test_arrays_whose_names_mean_other_things_with_everyone() -> None:
    def part(dark: str, light: str, seed: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        y = np.arange(20) % 2
        x = (rng.integers(0, 100, (20, 4, 4, 1)) + 150 * y[:, None, None, None]).astype(np.uint8)
        return x, [(dark, light)[k] for k in y]

    data = [(part("a", "b", 1), part("a", "b", 2)), (part("b", "a", 3), part("b", "a", 4))]
    config = OWN | {"data": {}, "phases": [OWN["phases"][0] | {"rounds": 5}]}
    result = edgemeta.simulate(config, data=data)
    assert result.history[-1]["evaluation"]["after"]["accuracy"]["mean"] == 1.0
    for dark, light in (("a", "b"), ("b", "a")):
        own = result.model.adapt(*part(dark, light, 5))
        chances = own.predict(np.full((4, 4, 1), 240, np.uint8))[0]
        assert own.classes[int(chances.argmax())] == light
    network = Model([Flatten(), Dense(16), ReLU(), Dense(6)], (4, 4, 1), "prototypes")
    assert edgemeta.simulate(config, data=data, model=network).model.network.layers == network.layers


def test_a_participant_with_one_class_takes_part_and_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (20, 4, 4, 1), np.uint8)
    two, one = (((x, y), (x, y)) for y in (np.arange(20) % 2, np.zeros(20, np.int64)))
    config = OWN | {"data": {}, "server": {"optimizer": "sgd"}}
    both = edgemeta.simulate(config, data=[two, one])
    assert [record["participants"] for record in both.history[1:]] == [2, 2, 2]
    assert both.history[-1]["evaluation"]["chance"] == 0.75  # of a half and one
    with pytest.raises(DataError, match="every participant has samples of one class"):
        edgemeta.simulate(config, data=[one, one])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "mlp"}}, "'protonet' learns an embedding.*give model.classes = 'own'"),
        ({"model": {"classes": "mine"}}, "model.classes is 'mine': expected a list of names, a number, or 'own'"),
        ({"model": {"loss": "prototypes"}}, r"takes an embedding \(model.classes = 'own'\): give cross-entropy"),
        ({"evaluation": {"adaptation": "known"}}, "'known' leaves classes out, and an embedding has none"),
        ({"phases": [{"algorithm": "protonet", "settings": {"scale": 0.0}}]}, "scale is 0.0: expected more than 0"),
    ],
)
def test_what_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edgemeta.simulate(OWN | changes)


def test_a_network_of_ones_own_has_to_end_in_an_embedding() -> None:
    with pytest.raises(ConfigError, match=r"ends in class scores: .* Model\(..., loss='prototypes'\)"):
        edgemeta.simulate(OWN, model=Model([Flatten(), Dense(3)], (8, 8, 3)))


def test_scores_of_own_classes_say_how_many_there_are() -> None:
    settings = config_from(OWN | {"evaluation": {}}).evaluation
    metrics = {"samples": 4, "before": None, "after": {"loss": 1.0, "accuracy": 0.5}, "grid": [], "classes": 3}

    def admitted(**changes: Any) -> dict[str, Any]:
        body = json.dumps({"metrics": metrics | changes}).encode()
        return admit_evaluation(body, settings, classifies=True, own=True)

    assert admitted() == metrics
    assert admitted(before={"loss": 0.0}) == metrics  # what nobody asked for is not kept
    for classes in (0, -1, True, "3", None, 10**12):
        with pytest.raises(Refused, match="classes"):
            admitted(classes=classes)


@pytest.mark.slow
def test_the_same_bits_over_http_through_kills(tmp_path: Path) -> None:
    config, served, log = write_config(tmp_path, OWN), tmp_path / "served", tmp_path / "log"
    edgemeta.simulate(config, out=tmp_path / "simulated")
    arguments = ("server", "--config", config, "--state", served)

    def has_finished(rounds: int) -> bool:
        return (run_of(served) / "history.jsonl").exists() and len(records(served, 0)) >= rounds

    server = start(*arguments, "--port", 0, log=log)
    url = server.stdout.readline().split()[-1]
    devices = [
        start(
            *("client", "--server", url, "--data", SPEC, "--partition-id", k),
            *("--state", tmp_path / f"device{k}", "--name", f"board-{k}"),
            log=log,
        )
        for k in range(4)
    ]
    try:
        for finished in (1, 2):
            wait_for(partial(has_finished, finished), 30)
            end(server)
            server = start(*arguments, "--port", url.rpartition(":")[2], log=log)
        assert [device.wait(timeout=30) for device in devices] == [0, 0, 0, 0], log.read_text()
    finally:
        end(server, *devices)
    assert_same_run(served, tmp_path / "simulated")
    prepared = edgemeta.api.prepare(config_from(OWN))
    for k, participant in enumerate(prepared.participants):
        own = edgemeta.load_model(tmp_path / f"device{k}" / "personal.safetensors")
        assert own.round == 3
        assert own.classes == participant.train_set.classes


@pytest.mark.slow
def test_folders_of_own_names_which_the_gateway_never_hears(tmp_path: Path) -> None:
    photograph(tmp_path / "a", "my cup", "red")
    photograph(tmp_path / "a", "the door", "green")
    photograph(tmp_path / "b", "my cup", "blue")  # the same name, for another thing
    photograph(tmp_path / "b", "nothing", "grey")
    settings = OWN | {
        "model": {"name": "mlp", "classes": "own", "input_shape": [8, 8, 3]},
        "data": {"participants": 2},
        "server": {"round_deadline_s": 60.0},
    }
    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, url):
        look = command_line("doctor", url, "--data", tmp_path / "a", "--json", cwd=tmp_path)
        found = {finding["check"]: finding["text"] for finding in json.loads(look.stdout)["checks"]}
        assert found["classes"].startswith("2 of its own, my cup, the door; ")
        assert "ok" in found["memory"] or "MB are free" in found["memory"]
        nothing = command_line("client", "--server", url, "--state", tmp_path / "da", "--name", "a", cwd=tmp_path)
        assert nothing.returncode == 2
        assert "every device of this run has its own classes" in nothing.stderr
        assert "--data FOLDER" in nothing.stderr
        with (
            edgemeta.Device(url, tmp_path / "a", tmp_path / "da", "a") as a,
            edgemeta.Device(url, tmp_path / "b", tmp_path / "db", "b") as b,
        ):
            in_turn(a, b, grows=lambda: photograph(tmp_path / "a", "a new thing", "blue"))
            picture = np.broadcast_to(np.array(COLOURS["blue"], np.uint8), (8, 8, 3))
            guesses = [int(device.predict(picture).argmax()) for device in (a, b)]
            assert [len(device.classes) for device in (a, b)] == [3, 2]
        with urllib.request.urlopen(f"{url}/status.json") as answer:
            assert [row["classes"] for row in json.load(answer)["devices"]] == [3, 2]
    own = [edgemeta.load_model(tmp_path / state / "personal.safetensors") for state in ("da", "db")]
    assert own[0].classes == ("a new thing", "my cup", "the door")
    assert own[1].classes == ("my cup", "nothing")
    assert [model.classes[guess] for model, guess in zip(own, guesses, strict=True)] == ["a new thing", "my cup"]
    for path in (tmp_path / "served").rglob("*"):
        if path.is_file():
            assert not any(name in path.read_bytes() for name in (b"my cup", b"the door", b"nothing", b"a new thing"))

    model = tmp_path / "served" / "model.safetensors"
    shown = command_line("evaluate", model, "--data", tmp_path / "a")
    assert "before adaptation: no classes yet" in shown.stdout, shown.stderr
    refused = command_line("predict", model, tmp_path / "a" / "my cup" / "red-0.png")
    assert refused.returncode == 2
    assert "adapt it first" in refused.stderr
    adapted = command_line("adapt", model, "--data", tmp_path / "a", "--out", tmp_path / "mine.safetensors")
    assert adapted.returncode == 0, adapted.stderr
    said = command_line("predict", tmp_path / "mine.safetensors", tmp_path / "a" / "my cup" / "red-0.png")
    assert "red-0.png: my cup" in said.stdout


RIVAL = OWN | {
    "phases": [{"algorithm": "fedavg", "rounds": 2, "local_steps": 3, "batch_size": 12, "lr": 0.1, "momentum": 0.5}],
    "evaluation": {"every": 2, "support": 20, "adaptation": "sgd", "grid": [[0, 20]]},
}


def test_a_rival_numbers_its_classes_and_its_head_travels_beside_the_embedding(tmp_path: Path) -> None:
    """One participant: a run of FedAvg on the whole network, whose head stays out of the model file."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 4, 4, 1), np.uint8), np.arange(20) % 3
    config = RIVAL | {"data": {}, "model": {"name": "mlp"}}
    own = config | {"model": {"name": "mlp", "classes": "own"}}
    named = edgemeta.simulate(config, data=[((x, y), (x, y))], out=tmp_path / "named")
    ours = edgemeta.simulate(own, data=[((x, y), (x, y))], out=tmp_path / "own")
    kept = read_tensors(tmp_path / "own" / "rounds" / "000002" / "server.safetensors")[0]["shared.head"]
    whole = named.model.network
    assert len(kept) == 200 * 3 + 3
    # Both begin with the whole network's first numbers, but for the head's, which a run of own classes has of its own.
    start = np.concatenate([ours.model.network.init(3), whole.init(0)[ours.model.network.layout.size :]])
    TrainedModel(whole, start, ("0", "1", "2")).save(tmp_path / "start.safetensors")
    named = edgemeta.simulate(config, data=[((x, y), (x, y))], init=tmp_path / "start.safetensors")
    np.testing.assert_allclose(np.concatenate([ours.model.theta, kept]), named.model.theta, rtol=1e-5, atol=1e-6)
    for ours_of, theirs in zip(ours.history, named.history, strict=True):
        if "evaluation" in ours_of:
            assert ours_of["evaluation"]["before"] is None
            for key in ("after", "grid"):
                assert str(ours_of["evaluation"][key]) == str(theirs["evaluation"][key])  # type: ignore[literal-required]


def test_rivals_and_prototypes_in_phases_of_one_run() -> None:
    phases = [OWN["phases"][0] | {"rounds": 1}, RIVAL["phases"][0] | {"algorithm": "fomaml", "rounds": 1}]
    run = edgemeta.simulate(OWN | {"phases": [*phases, OWN["phases"][0] | {"rounds": 1}]})
    down = [record["bytes_down"] for record in run.history]
    assert down[2] > down[1] + 3 * 4 * 600  # the head of three classes goes to three participants
    with pytest.raises(ConfigError, match="most_classes is for own classes"):
        edgemeta.simulate(TINY | {"model": {"name": "mlp", "most_classes": 3}})


def test_a_gateway_of_devices_with_data_of_their_own_needs_the_most_classes_for_a_rival() -> None:
    field = RIVAL | {"model": {"name": "mlp", "classes": "own", "input_shape": [8, 8, 3], "most_classes": 5}}
    config, network = edgemeta.api.prepare_gateway(config_from(field))
    assert network.headed is not None
    assert (network.headed.outputs, config.model.most_classes) == (5, 5)
    described = Description.from_json(json.loads(json.dumps(Description(config.data, 0, network, (), 2).to_json())))
    assert described.network.headed is not None
    assert described.network.headed.layout == network.headed.layout


@pytest.mark.slow
def test_a_rivals_bits_over_http_and_its_personal_model(tmp_path: Path) -> None:
    settings = RIVAL | {"data": TINY["data"] | {"participants": 2, "held_out": 0}}
    config, served, log = write_config(tmp_path, settings), tmp_path / "served", tmp_path / "log"
    edgemeta.simulate(config, out=tmp_path / "simulated")
    with gateway(config, served) as (_, url):
        devices = [
            start(
                *("client", "--server", url, "--data", SPEC, "--partition-id", k),
                *("--state", tmp_path / f"device{k}", "--name", f"board-{k}"),
                log=log,
            )
            for k in range(2)
        ]
        try:
            assert [device.wait(timeout=30) for device in devices] == [0, 0], log.read_text()
        finally:
            end(*devices)
    assert_same_run(served, tmp_path / "simulated")
    last = edgemeta.simulate(config).history[-1]["evaluation"]["after"]["accuracy"]
    participants = edgemeta.api.prepare(config_from(settings)).participants
    right = []
    for k, participant in enumerate(participants):
        own = edgemeta.load_model(tmp_path / f"device{k}" / "personal.safetensors")
        assert own.classes == participant.train_set.classes
        right.append(float((own.predict(participant.test.x).argmax(axis=1) == participant.test.y).mean()))
    assert np.mean(right) == pytest.approx(last["mean"])  # the personal model goes on from the head that was trained
