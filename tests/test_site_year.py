"""A site's years: upgraded, three runs, a dead board replaced, one late, one copied, one asleep, a new certificate."""

import itertools
import json
import re
import shlex
import shutil
import ssl
import time
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException

import pytest
from gateways import wait_for
from kept import unpack
from processes import end
from runs import command_line

import edgemeta
from edgemeta.bench.loopback import device, start_gateway
from edgemeta.config import config_from, to_dict, to_toml
from edgemeta.device.done import Kind
from edgemeta.fed.runs import config_of, runs

SPEC = "synthetic:samples=60,classes=3,size=8"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program")


class Site:
    """The folder of a site, its commands, and what its gateway says."""

    def __init__(self, state, config):
        self.state, self.config, self.trust = state, config, None
        self.log = state.with_suffix(".log")

    @contextmanager
    def served(self, port=0):
        process, self.url = start_gateway(self.config, self.state, "--port", port)
        try:
            yield
        finally:
            end(process)

    def do(self, *words):
        done = command_line(*words, "--state", self.state, cwd=self.state.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self):
        for _ in range(50):
            try:
                with urllib.request.urlopen(f"{self.url}/status.json", context=self.trust) as answer:
                    return json.loads(answer.read())
            except (OSError, HTTPException):  # nobody listens for a moment between two runs
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def enroll(self, name):
        self.do("enroll", name, "--url", self.url)
        return self.state.parent / f"{name}.join"


def steps(board, until, wake_s=0.0, seconds=30.0):
    """Let a device go on until it does something; return that."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done = board.step(1.0, wait_s=0.2, wake_s=wake_s)
        if done.kind == until:
            return done
        time.sleep(min(done.wait_s, 0.3))
    raise AssertionError(f"it did not come: {done}")


@pytest.mark.slow
@needs_openssl
def test_years(tmp_path):
    house = unpack("household-joined", tmp_path)
    site = Site(house / "gateway", house / "run.toml")
    shutil.copy(site.state / "run.toml", site.config)

    # The first year: a gateway and its boards of an earlier release, which go on where they were.
    with site.served():
        boards = []
        for k in range(4):
            place = house / f"board-{k}"
            said = re.sub(r"http://127\.0\.0\.1:\d+", site.url, (place / "device.json").read_text())
            (place / "device.json").write_text(said)
            boards.append(device(site.url, place, "--data", SPEC, "--partition-id", k))
        try:
            assert [board.wait(60) for board in boards] == [0] * 4, site.log.read_text()
        finally:
            end(*boards)
        assert (site.status()["run"], site.status()["stage"]) == ("0001", "over")

    # The second one: certificates, tokens, and as many boards as there are.
    began = to_dict(config_of(runs(site.state)[0]))
    settings = began | {
        "data": {"participants": 0},
        "phases": [{"algorithm": "fedavg", "rounds": 3, "local_steps": 1, "batch_size": 4}],
        "server": {"min_available_clients": 2, "min_fit_clients": 2, "round_deadline_s": 1},
        "evaluation": {"every": 100, "support": 4},
    }
    (house / "field.toml").write_text(to_toml(config_from(settings)))
    site.do("tls", "--host", "127.0.0.1")
    site.do("run", "new", "--config", "field.toml")
    with site.served():
        site.trust = ssl.create_default_context(cafile=str(site.state / "tls" / "ca.pem"))
        port = site.url.rpartition(":")[2]
        with edgemeta.Device(join=site.enroll("attic"), data=SPEC, state=house / "attic") as attic:
            with edgemeta.Device(join=site.enroll("cellar"), data=SPEC, state=house / "cellar") as cellar:
                for board in (attic, cellar):
                    steps(board, Kind.JOINED)
                for board in (attic, cellar):
                    steps(board, Kind.DELIVERED)  # the evaluation of the start
            # The cellar is flooded: its board is gone for good, and the run says what mends that.
            wait_for(lambda: "edgemeta devices replace" in site.log.read_text(), 20)
            site.do("run", "set", "server.round_deadline_s=30")
            made = site.do("devices", "replace", "cellar", "cellar-2", "--url", site.url)
            (joins,) = re.findall(r"'(edgemeta client --join [^']+)'", made)
            join = house / shlex.split(joins)[-1]
            site.do("tls", "--host", "localhost")  # the certificate gains a name, and nobody notices
            wait_for(lambda: "localhost" in site.status()["certificate"]["names"], 20)
            with edgemeta.Device(join=join, data=SPEC, state=house / "cellar-2") as new:
                steps(new, Kind.JOINED)
                while site.status()["stage"] != "over":
                    for board in (attic, new):
                        board.step(1.0, wait_s=0.2)
                    time.sleep(0.05)
                steps(new, Kind.OVER)
            steps(attic, Kind.OVER)
        assert command_line("client", "--join", house / "cellar.join", "--state", house / "old").returncode == 2
        late = command_line("client", "--join", site.enroll("late"), "--data", SPEC, "--state", house / "late")
        assert late.returncode == 0, late.stderr
        assert edgemeta.load_model(house / "late" / "personal.safetensors").round == 3
        assert "round_deadline_s" in json.dumps([json.loads(line) for line in _history(site)])

    # The third one: a copied card, and a board that sleeps, beside one that is always on.
    with site.served(port):
        shutil.copytree(house / "attic", house / "copy")
        site.do("run", "new", "--config", "field.toml", "--from", "latest", "--set", "server.min_fit_clients=1")
        wait_for(lambda: site.status()["run"] == "0003", 10)
        with (
            edgemeta.Device(join=house / "attic.join", data=SPEC, state=house / "attic") as attic,
            edgemeta.Device(join=house / "cellar-2.join", data=SPEC, state=house / "cellar-2") as asleep,
        ):
            steps(attic, Kind.JOINED)
            steps(asleep, Kind.JOINED, wake_s=900)
            steps(asleep, Kind.TASK, wake_s=900)
            with edgemeta.Device(join=house / "attic.join", data=SPEC, state=house / "copy") as copy:
                for board in itertools.chain.from_iterable(itertools.repeat((attic, copy), 60)):
                    board.step(1.0, wait_s=0.1)
                    time.sleep(0.1)
                    if site.status()["copied"]:
                        break
                assert site.status()["copied"] == ["attic"]
            steps(attic, Kind.OVER)
            steps(asleep, Kind.OVER, wake_s=900)
        assert (site.status()["run"], site.status()["stage"]) == ("0003", "over")
    listed = json.loads(site.do("devices", "--json"))["devices"]
    assert {one["name"]: one["runs"] for one in listed if one["name"] in ("attic", "cellar", "cellar-2", "late")} == {
        "attic": 2,
        "cellar": 0,  # its place, and what it did there, are its successor's
        "cellar-2": 2,
        "late": 1,
    }
    assert "Traceback" not in site.log.read_text()


def _history(site):
    return (runs(site.state)[-1] / "history.jsonl").read_text().splitlines()
