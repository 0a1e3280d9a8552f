"""`edgemeta doctor` against real gateways, real certificates, and what is no gateway."""

import json
import re
import shutil
import socket
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from certificates import NOW, join_file, signed
from gateways import Gateway, no_gateway_left
from processes import write_config
from runs import TINY, command_line

from edgemeta.bench.loopback import gateway
from edgemeta.gateway.certificates import make_certificates
from edgemeta.gateway.enrolment import tls_of
from edgemeta.gateway.tokens import revoke
from edgemeta.nn import build

pytestmark = pytest.mark.slow

NETWORK = build("mlp", (3,), 2)
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="NOT TESTED: TLS, as there is no openssl")


def doctor(*arguments, cwd, status=0):
    """Return check -> (ok, text) of a run of the command, which never shows a traceback."""
    done = command_line("doctor", *arguments, "--json", cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] == (status == 0)
    return {finding["check"]: (finding["ok"], finding["text"]) for finding in said["checks"]}


@pytest.fixture
def url(tmp_path):
    """A gateway in a process of its own, which nobody has joined."""
    with gateway(write_config(tmp_path, TINY), tmp_path / "served") as (_, address):
        yield address


def test_all_is_well(url, tmp_path):
    data = ("--data", "synthetic:samples=120,size=8")
    done = command_line("doctor", url, *data, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    checks = [
        "name",
        "connection",
        "TLS",
        "clock",
        "token",
        "protocol",
        "run",
        "layout",
        "classes",
        "disk",
        "memory",
        "speed",
    ]
    assert list(lines) == checks
    assert all(line.startswith("ok ") for line in lines.values()), done.stdout
    assert "mlp of 80,810 parameters" in lines["layout"]  # 192 * 200 + 200, 200 * 200 + 200, 200 * 10 + 10
    assert "120 training samples" in lines["classes"]
    assert " 2 steps of " in lines["speed"]
    with urllib.request.urlopen(f"{url}/status.json") as answer:
        assert json.load(answer)["joined"] == 0
    assert not (tmp_path / "edgemeta-state").exists()


def test_without_data_the_classes_are_only_named(url, tmp_path):
    ok, text = doctor(url, cwd=tmp_path)["classes"]
    assert ok is None
    assert text.startswith("the run's are disc, ring, ")


def test_classes_that_the_run_does_not_know(tmp_path):
    settings = {"model": {"name": "mlp", "input_shape": [8, 8, 3], "classes": ["disc", "dog"]}}
    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, address):
        mine = ("--data", "synthetic:samples=60,size=8,classes=2")
        ok, text = doctor(address, *mine, cwd=tmp_path, status=1)["classes"]
    assert ok is False
    assert "the model does not know ring" in text


def test_little_memory_by_the_profile(tmp_path):
    settings = TINY | {"model": {"name": "cnn"}, "data": {"source": "synthetic:samples=120", "participants": 2}}
    (tmp_path / "small.toml").write_text("memory_mb = 64\n")
    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, address):
        found = doctor(address, "--profile", tmp_path / "small.toml", cwd=tmp_path, status=1)
    assert found["memory"][0] is False
    assert "memory_mb in the profile is 64" in found["memory"][1]
    assert found["speed"] == (None, "too little memory")


def test_a_step_slower_than_the_deadline(tmp_path):
    settings = TINY | {"server": {"round_deadline_s": 1e-6}}
    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, address):
        ok, text = doctor(address, cwd=tmp_path, status=1)["speed"]
    assert ok is False
    assert "give the run fewer local steps" in text


def test_a_state_folder_that_cannot_be_written(url, tmp_path):
    ok, text = doctor(url, "--state", "/proc/edgemeta", cwd=tmp_path, status=1)["disk"]
    assert ok is False
    assert "/proc cannot be written" in text


def test_nothing_listens_and_nobody_knows_the_name(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    found = doctor(f"http://127.0.0.1:{port}", cwd=tmp_path, status=1)
    assert found["name"][0] is True
    assert found["connection"][0] is False
    assert "nothing listens" in found["connection"][1]
    assert found["disk"][0] is True  # what does not need the gateway is looked at all the same
    assert found["speed"][0] is None
    found = doctor("http://nowhere.invalid:8742", cwd=tmp_path, status=1)
    assert found["name"][0] is False
    assert "'nowhere.invalid' is not known here" in found["name"][1]
    assert doctor("ftp://gateway", cwd=tmp_path, status=1)["address"][0] is False


def test_what_it_takes(tmp_path):
    done = command_line("doctor", cwd=tmp_path)
    assert done.returncode == 2
    assert "give the gateway's URL, or a join file" in done.stderr


@contextmanager
def answering(status, said):
    """A web server that answers everything with one thing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_answers_is_no_gateway(tmp_path):
    with answering(404, {"no": "page"}) as address:
        assert "it answered 404" in doctor(address, cwd=tmp_path, status=1)["gateway"][1]
    with answering(200, {"hello": "world"}) as address:
        assert "is it an edgemeta gateway" in doctor(address, cwd=tmp_path, status=1)["gateway"][1]


def test_a_clock_that_is_off_and_another_protocol(tmp_path):
    said = {"protocol": 9, "name": None, "time": 1_000_000_000, "recipe": {}, "round_deadline_s": 60}
    with answering(200, said) as address:
        found = doctor(address, cwd=tmp_path, status=1)
    assert found["clock"][0] is False
    assert "ahead of the gateway" in found["clock"][1]  # whose time is 2001
    assert found["protocol"] == (False, "version 9 there and 1 here: install the same edgemeta on both")


@needs_openssl
def test_trust_and_tokens(tmp_path):
    state = tmp_path / "state"
    make_certificates(state / "tls", ["gateway.test"], NOW)
    served = Gateway(state, tls=tls_of(state, None, None), network=NETWORK)
    with no_gateway_left([served]):
        path = join_file(state, served.port)
        found = doctor("--join", path, cwd=tmp_path)
        assert found["join file"][0] is True
        well, text = found["TLS"]
        assert well
        good = re.fullmatch("TLSv1.3, and the gateway is the one of the join file; its .* good for ([0-9]+) days", text)
        assert int(good[1]) in (3648, 3649, 3650)
        assert found["token"] == (True, "the gateway knows it as 'cam'")
        token = path.read_text().split('token = "')[1].split('"')[0]
        wrong = tmp_path / "wrong"
        wrong.write_text(path.read_text().replace(token, token[::-1]))
        wrong.chmod(0o600)
        assert doctor("--join", wrong, cwd=tmp_path, status=1)["token"][0] is False
        revoke(state / "devices.json", "cam")
        ok, text = doctor("--join", path, cwd=tmp_path, status=1)["token"]
        assert (ok, text.split(":")[0]) == (False, "revoked")
        assert token not in text
        plain = doctor(f"http://127.0.0.1:{served.port}", cwd=tmp_path, status=1)
        assert plain["gateway"][0] is False
        cut = tmp_path / "cut"
        cut.write_text(path.read_text()[:80])
        cut.chmod(0o600)
        assert doctor("--join", cut, cwd=tmp_path, status=1)["join file"][0] is False


@needs_openssl
@pytest.mark.parametrize(
    ("start", "end", "check"), [("20200101", "20210101", "TLS"), ("20900101", "20910101", "clock")]
)
def test_certificates_that_are_not_good_now(tmp_path, start, end, check):
    state = tmp_path / "state"
    make_certificates(state / "tls", ["gateway.test"], NOW)
    served = Gateway(state, tls=signed(state / "tls", start, end), network=NETWORK)
    with no_gateway_left([served]):
        found = doctor("--join", join_file(state, served.port), cwd=tmp_path, status=1)
    assert found[check][0] is False
    assert "token" not in found
