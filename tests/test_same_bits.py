"""One gateway and its devices, in processes of their own, end with the bits of the run in one process."""

import random
import time

import pytest
from processes import SPEC, assert_same_run, end, taught, write_config
from runs import TINY
from taught import SHARING

import edgemeta
from edgemeta.api import config_of
from edgemeta.bench.loopback import gateway, records, start
from edgemeta.data import open_data
from edgemeta.fed.participants import divide
from edgemeta.fed.runs import run_of
from edgemeta.meta.learners import LEARNERS
from edgemeta.nn.files import read_tensors

pytestmark = pytest.mark.slow

NOISY = TINY | {
    "data": TINY["data"] | {"validation": 0.2, "label_noise": 0.2, "pixel_noise": 0.1, "noisy_participants": 0.5},
    "server": {"fraction_fit": 0.7, "min_available_clients": 3},
}


@pytest.mark.parametrize("settings", [TINY, NOISY], ids=["plain", "noise-and-a-fraction"])
def test_the_same_bits_as_a_simulation(tmp_path, settings):
    config = write_config(tmp_path, settings)
    edgemeta.simulate(config, out=tmp_path / "simulated")
    order = list(range(4))
    random.Random(1).shuffle(order)  # a participant's number is what it asked for, not when it came
    with gateway(config, tmp_path / "served") as (_, url):
        devices = [
            start(
                *("client", "--server", url, "--data", SPEC, "--partition-id", k),
                *("--state", tmp_path / f"device{k}", "--name", f"board-{k}"),
                log=tmp_path / "log",
            )
            for k in order
        ]
        try:
            assert [device.wait(timeout=30) for device in devices] == [0, 0, 0, 0], (tmp_path / "log").read_text()
        finally:
            end(*devices)
        assert_same_run(tmp_path / "served", tmp_path / "simulated")
    for k in range(4):
        own = edgemeta.load_model(tmp_path / f"device{k}" / "personal.safetensors")
        assert own.round == 4


def test_the_personalised_model_is_the_one_that_was_scored_after_adaptation(tmp_path):
    """With one participant, the spread of the history is that participant's score."""
    one = {"source": SPEC, "participants": 1, "partition": "iid"}
    config = write_config(tmp_path, TINY | {"data": one})
    with gateway(config, tmp_path / "served") as (_, url):
        device = start(
            *("client", "--server", url, "--data", SPEC, "--state", tmp_path / "d", "--partition-id", 0),
            log=tmp_path / "log",
        )
        assert device.wait(timeout=30) == 0
        end(device)

    settings = config_of(config)
    participant = divide(open_data(SPEC, seed=3), settings.data, 3)[0][0]
    own = edgemeta.load_model(tmp_path / "d" / "personal.safetensors")
    right = own.predict(participant.test.x).argmax(axis=1) == participant.test.y
    history = edgemeta.simulate(config).history
    assert right.mean() == history[-1]["evaluation"]["after"]["accuracy"]["mean"]


STATEFUL = TINY | {
    "phases": [
        {"algorithm": "fedavg", "rounds": 1, "local_steps": 2, "batch_size": 4},
        {"algorithm": "sharing", "rounds": 4, "local_steps": 3, "batch_size": 4, "upload": "float16"},
    ],
    "server": {"optimizer": "adam", "optimizer_settings": {"lr": 0.01}, "selection": "similar"},
}


def test_the_same_bits_when_the_server_keeps_state_and_two_vectors_travel_through_kills(tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "sharing", SHARING)
    config, served, log = write_config(tmp_path, STATEFUL), tmp_path / "served", tmp_path / "log"
    edgemeta.simulate(config, out=tmp_path / "simulated")
    arguments = ("server", "--config", config, "--state", served)
    server = taught(*arguments, "--port", 0, log=log)
    url = server.stdout.readline().split()[-1]
    devices = [
        taught(
            *("client", "--server", url, "--data", SPEC, "--partition-id", k),
            *("--state", tmp_path / f"device{k}", "--name", f"board-{k}"),
            log=log,
        )
        for k in range(4)
    ]
    try:
        for finished in (1, 3, 4):
            while not (run_of(served) / "history.jsonl").exists() or len(records(served, 0)) < finished:
                time.sleep(0.01)
            end(server)
            server = taught(*arguments, "--port", url.rpartition(":")[2], log=log)
        assert [device.wait(timeout=30) for device in devices] == [0, 0, 0, 0], log.read_text()
    finally:
        end(server, *devices)
    assert_same_run(served, tmp_path / "simulated")
    state = run_of(served) / "rounds" / "000005" / "server.safetensors"
    kept = read_tensors(state)[0]
    assert kept["shared.count"].tolist() == [12.0] * 3  # four rounds of three steps, by all that were asked
    assert set(kept) == {"shared.count", "optimizer.mean", "optimizer.square", "sketches.of", "sketches.rows"}
    assert state.read_bytes() == (tmp_path / "simulated" / state.relative_to(run_of(served))).read_bytes()


@pytest.mark.parametrize("classes", ["common", "own"])
def test_every_learner_over_http_with_the_bits_of_one_process(tmp_path, classes):
    """One phase for each: of two rounds where the first leaves something behind, which the second begins with."""
    own = classes == "own"
    learners = [n for n, row in LEARNERS.items() if (row.embeds or row.apart or row.shared if own else not row.embeds)]
    phase = {"local_steps": 2, "batch_size": 4, "lr": 0.05}
    rounds = {name: 2 if LEARNERS[name].private else 1 for name in learners}
    settings = TINY | {
        "model": {"name": "mlp"} | ({"classes": "own"} if own else {}),
        "data": TINY["data"] | {"participants": 2, "held_out": 0},
        "phases": [phase | {"algorithm": name, "rounds": rounds[name]} for name in learners],
        "evaluation": {"every": 50, "support": 8, "adaptation": "sgd", "adapt_steps": 1},
    }
    config, log = write_config(tmp_path, settings), tmp_path / "log"
    edgemeta.simulate(config, out=tmp_path / "simulated")
    with gateway(config, tmp_path / "served") as (_, url):
        devices = [
            start(
                *("client", "--server", url, "--data", SPEC, "--partition-id", k),
                *("--state", tmp_path / f"device{k}", "--name", f"board-{k}"),
                log=log,
            )
            for k in range(2)
        ]
        try:
            assert [device.wait(timeout=60) for device in devices] == [0, 0], log.read_text()
        finally:
            end(*devices)
        assert_same_run(tmp_path / "served", tmp_path / "simulated")
    ran = [record["algorithm"] for record in records(tmp_path / "served", 1)]
    assert ran == [name for name in learners for _ in range(rounds[name])]
