"""The same run on Flower, against the real package: a SuperLink and SuperNodes in processes, on loopback."""

import json
import shlex
from copy import deepcopy

import pytest
from federations import INIT, RUN, federation, needs_flower, wait
from runs import TINY, command_line, without_seconds

import edgemeta
from edgemeta.config import config_from, to_toml

pytestmark = [needs_flower, pytest.mark.slow]

# Two vectors travel, and one stays on the node; then float16 uploads.
TWO = deepcopy(TINY) | {
    "data": {"source": "synthetic:samples=120,size=8", "participants": 2, "partition": "iid", "pixel_noise": 0.1},
    "phases": [
        {"algorithm": "scaffold", "rounds": 2, "local_steps": 2, "batch_size": 4},
        {"algorithm": "fedavg", "rounds": 1, "local_steps": 2, "batch_size": 4, "upload": "float16"},
    ],
    "evaluation": {"every": 9, "support": 8, "grid": [[1, 4]]},
}
TEN = deepcopy(TINY) | {
    "model": {"name": "mlp", "classes": "own"},
    "data": {"source": "synthetic:samples=400,size=8", "participants": 10, "held_out": 2, "partition": "shards:3"},
    "phases": [{"algorithm": "protonet", "rounds": 3, "local_steps": 2, "batch_size": 8}],
    "server": {"fraction_fit": 0.5},
}


@pytest.fixture
def app(tmp_path):
    """Makes the app of a run, by the README's command, and returns the folder."""

    def make(settings):
        (tmp_path / "run.toml").write_text(to_toml(config_from(settings)))
        done = command_line(*shlex.split(INIT), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return tmp_path / "app"

    return make


def check_same(out, settings):
    """Hold what a run on Flower has left to what the simulation leads to."""
    expected = edgemeta.simulate(settings)
    assert edgemeta.load_model(out / "model.safetensors").theta.tobytes() == expected.model.theta.tobytes()
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert without_seconds(history) == without_seconds(expected.history)
    return history


def rounds(out):
    path = out / "history.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def test_two_nodes_have_the_simulations_bits_also_when_the_server_app_is_killed(app, tmp_path):
    folder = app(TWO)
    out = folder / "run"
    with federation(tmp_path) as flower:
        flower.superlink()
        flower.supernode("node0", "partition-id=0")
        flower.supernode("node1", "partition-id=1")
        flower.run(RUN)
        wait(lambda: rounds(out) == 3, 240, flower.logs)  # the last round in which nodes keep something to themselves
        flower.kill_server_app()
        flower.run(RUN)
        wait(lambda: (out / "summary.json").exists(), 240, flower.logs)
    check_same(out, TWO)


def test_ten_nodes_of_flowers_simulation_have_them_too(app, tmp_path):
    folder = app(TEN)
    with federation(tmp_path) as flower:
        flower.superlink("--simulation")
        run = flower.run(RUN, connection="options.num-supernodes = 10\n")
        wait(lambda: (folder / "run" / "summary.json").exists(), 240, flower.logs)
        wait(lambda: flower.status(run) == "finished:completed", 30, flower.logs)
    assert check_same(folder / "run", TEN)[-1]["evaluation_new"]
