"""A network without a name, from a model file: in a simulation, and over HTTP to devices that have never seen it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from processes import SPEC, assert_same_run, write_config
from runs import TINY, command_line

import edgemeta
from edgemeta.bench.loopback import device, ended, gateway
from edgemeta.data import open_data
from edgemeta.device.done import Kind
from edgemeta.errors import ConfigError
from edgemeta.nn import Conv2d, Dense, Flatten, MaxPool2d, Model, ReLU
from edgemeta.nn.files import save_model

pytestmark = pytest.mark.slow

LAYERS = [Conv2d(3, 3), ReLU(), MaxPool2d(2), Flatten(), Dense(10)]
CUSTOM = TINY | {"model": {"name": "custom"}, "data": {"source": SPEC, "participants": 2, "partition": "iid"}}


@pytest.fixture
def start(tmp_path):
    """A model file with a network of one's own."""
    network = Model(LAYERS, (8, 8, 3))
    save_model(tmp_path / "start.safetensors", network, network.init(5), open_data(SPEC).train.classes, 0)
    return tmp_path / "start.safetensors"


def test_over_http_it_is_the_same_run_as_in_one_process(tmp_path, start):
    config = write_config(tmp_path, CUSTOM)
    result = edgemeta.simulate(config, init=start, out=tmp_path / "simulated")
    assert result.model.network.layers == tuple(LAYERS)
    with gateway(config, tmp_path / "served", "--init", start) as (server, url):
        boards = [device(url, tmp_path / f"board-{k}", "--data", SPEC, "--partition-id", k) for k in range(2)]
        with ended(*boards):
            assert [board.wait(timeout=60) for board in boards] == [0, 0], (tmp_path / "board-0.log").read_text()
        server.kill()
    assert_same_run(tmp_path / "served", tmp_path / "simulated")
    own = edgemeta.load_model(tmp_path / "board-0" / "personal.safetensors")
    assert own.network.layers == tuple(LAYERS)
    with gateway(config, tmp_path / "served") as (_, url):  # goes on with the network that it has
        assert url


def test_without_a_file_it_says_where_the_network_comes_from(tmp_path, start):
    with pytest.raises(ConfigError, match="--init MODEL"):
        edgemeta.simulate(CUSTOM)
    for command, where in (("server", "--state"), ("simulate", "--out")):
        done = command_line(command, "--config", write_config(tmp_path, CUSTOM), where, tmp_path / "x")
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert "--init MODEL" in done.stderr
        assert not (tmp_path / "x").exists()
    done = command_line("simulate", "--config", tmp_path / "run.toml", "--init", start, "--threads", 2)
    assert done.returncode == 0, done.stderr


def test_a_network_that_no_board_can_hold_is_looked_at_before_it_is_built(tmp_path):
    large = Model([Dense(50_000), Dense(200_000), Dense(2)], (3,))  # ten thousand million parameters: 40 GB
    assert large.layout.size > 10**10
    said = {
        "participant": 0,
        "session": "s",
        "last_round": 1,
        "data": {"seed": 0},
        "model": {
            "name": "custom",
            "input_shape": [3],
            "classes": ["a", "b"],
            "normalization": {"mean": 0.0, "std": 1.0},
            "loss": "cross-entropy",
            "layout": large.layout.fingerprint,
            "layers": large.describe(),
        },
    }

    class Join(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)  # as a gateway of before does: the run is shown to who has joined

        def do_POST(self):
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Join) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url, data = f"http://127.0.0.1:{server.server_port}", (np.zeros((20, 3), np.float32), np.arange(20) % 2)
        with edgemeta.Device(url, data, tmp_path / "d", "board") as board:
            done = board.step()
        server.shutdown()
    assert done.kind == Kind.MEMORY, done
    assert "takes some" in str(done)
