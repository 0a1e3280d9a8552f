"""Gateways that take part in Flower, each as one SuperNode for its boards: the issue's whole picture, in processes.

It takes two minutes of two cores, so it runs where it is asked for: EDGEMETA_FLOWER=all, as `make soak` does.
"""

import json
import os

import numpy as np
import pytest
from federations import RUN, federation, needs_flower, wait
from runs import TINY, command_line

import edgemeta
from edgemeta.bench import loopback
from edgemeta.config import config_from, to_toml

pytestmark = [
    needs_flower,
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("EDGEMETA_FLOWER") != "all", reason="takes minutes: EDGEMETA_FLOWER=all"),
]

DATA = "synthetic:samples=240,size=8"
FLAT = TINY | {
    "data": {"source": DATA, "participants": 4, "partition": "iid"},
    "server": {"clip": "off"},
    "evaluation": {"every": 9, "support": 8},
}


def test_two_gateways_with_two_boards_each_have_the_flat_runs_model(tmp_path, monkeypatch):
    above = FLAT | {"data": FLAT["data"] | {"participants": 2}}
    below = FLAT | {"server": FLAT["server"] | {"min_available_clients": 2, "round_deadline_s": 60}}
    for name, settings in (("above", above), ("below", below)):
        (tmp_path / f"{name}.toml").write_text(to_toml(config_from(settings)))
    app, processes = tmp_path / "app", []
    assert command_line("flower", "init", app, "--config", tmp_path / "above.toml").returncode == 0
    with federation(tmp_path) as flower:
        for variable in ("FLWR_HOME", "PYTHONWARNINGS"):  # a gateway starts its SuperNode
            monkeypatch.setenv(variable, flower.env[variable])
        flower.superlink()
        try:
            for site in (0, 1):
                options = ("--superlink", f"http://{flower.address}", "--partition-id", site)
                gateway, url = loopback.start_gateway(tmp_path / "below.toml", tmp_path / f"site{site}", *options)
                processes.append(gateway)
                for board in (2 * site, 2 * site + 1):
                    own = ("--partition-id", board, "--data", DATA)
                    processes.append(loopback.device(url, tmp_path / f"board{board}", *own))
            flower.run(RUN)
            wait(lambda: (app / "run" / "summary.json").exists(), 240, flower.logs)
            gateways, boards = (processes[0], processes[3]), [p for k, p in enumerate(processes) if k not in (0, 3)]
            wait(lambda: all(board.poll() == 0 for board in boards), 60, flower.logs)
        finally:
            with loopback.ended(*processes):
                pass
        assert [gateway.returncode for gateway in gateways] == [0, 0]
    flat = edgemeta.simulate(FLAT)
    ours = edgemeta.load_model(app / "run" / "model.safetensors").theta
    np.testing.assert_allclose(ours, flat.model.theta, rtol=0, atol=1e-6)
    for site in (0, 1):
        there = edgemeta.load_model(tmp_path / f"site{site}" / "model.safetensors").theta
        assert there.tobytes() == ours.tobytes()
    history = [json.loads(line) for line in (app / "run" / "history.jsonl").read_text().splitlines()]
    assert [record["gradient_evaluations"] for record in history] == [
        record["gradient_evaluations"] for record in flat.history
    ]
