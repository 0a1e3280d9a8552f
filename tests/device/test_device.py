"""A device against a real gateway process, and against things that are no gateway."""

import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from processes import SPEC, assert_same_run, end, taught, write_config
from runs import TINY, arrays, command_line
from taught import COUNTING

import edgemeta
from edgemeta import Device
from edgemeta.bench.loopback import gateway, start, start_gateway
from edgemeta.config import DataConfig
from edgemeta.device.own import own_part
from edgemeta.errors import ConfigError, DataError, InputError, StorageError
from edgemeta.meta.learners import LEARNERS
from edgemeta.nn.files import read_tensors

pytestmark = pytest.mark.slow

ALONE = TINY | {
    "data": {"source": SPEC, "participants": 1, "partition": "iid"},
    "phases": [{"algorithm": "fomaml", "rounds": 2, "local_steps": 3, "batch_size": 4, "momentum": 0.5}],
}
PICTURE = np.zeros((8, 8, 3), np.uint8)


def until(device, *kinds, budget_s=60.0):
    """Call step until it did one of these, and return what it did."""
    for _ in range(200):
        done = device.step(budget_s, wait_s=1)
        if done.kind in kinds:
            return done
        time.sleep(min(done.wait_s, 0.5))
    raise AssertionError(f"never {kinds}, at last {done}")


@pytest.fixture
def alone(tmp_path):
    """A configuration for one device; the same run in one process is in the folder `simulated`."""
    config = write_config(tmp_path, ALONE)
    edgemeta.simulate(config, out=tmp_path / "simulated")
    return config


def rests(device):
    """Say whether the network has let go of the memory that it worked in."""
    with device._run.network.scratch() as workspace:
        return not workspace._parts


def test_a_run_step_by_step(tmp_path, alone):
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        with pytest.raises(DataError, match="no model"):
            device.predict(PICTURE)
        for kind in ("joined", "task", "evaluated", "delivered", "task"):
            assert device.step().kind == kind
            assert rests(device)
        assert device.predict(PICTURE).shape == (10,)
        assert device.predict(np.stack([PICTURE, PICTURE])).shape == (2, 10)
        assert str(device.step(budget_s=0)) == "trained 1 of 3 steps of round 1"
        assert str(device.step(budget_s=0)) == "trained 2 of 3 steps of round 1"
        assert str(device.step(budget_s=0)).startswith("trained 3 of 3 steps of round 1")
        assert rests(device)
        assert str(device.step()) == "delivered the update of round 1"
        done = until(device, "over")
        assert str(tmp_path / "d" / "personal.safetensors") in str(done)
        assert device.step().kind == "waiting"
        probabilities = device.predict(PICTURE)
        before = (tmp_path / "d" / "personal.safetensors").read_bytes()
        device.adapt()
        assert (tmp_path / "d" / "personal.safetensors").read_bytes() == before  # the same model, the same data
        assert rests(device)
        assert edgemeta.load_model(tmp_path / "d" / "model.safetensors").round == 2
    assert_same_run(tmp_path / "served", tmp_path / "simulated")

    offline = "import sys, edgemeta, numpy\n"
    offline += "device = edgemeta.Device('http://127.0.0.1:9', sys.argv[1], sys.argv[2])\n"
    offline += "print(device.predict(numpy.zeros((8, 8, 3), numpy.uint8)).tolist()); device.close()"
    command = [sys.executable, "-c", offline, SPEC, tmp_path / "d"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(probabilities.tolist())


def test_one_step_in_each_process_and_a_power_cut_after_it(tmp_path):
    config = write_config(tmp_path, ALONE | {"phases": [ALONE["phases"][0] | {"rounds": 1}]})
    edgemeta.simulate(config, out=tmp_path / "simulated")
    script = "import os, sys, edgemeta\n"
    script += "print(edgemeta.Device(*sys.argv[1:], 'board', 0).step(budget_s=0).kind, flush=True); os._exit(0)"
    kinds = []
    with gateway(config, tmp_path / "served") as (_, url):
        while not kinds or kinds[-1] != "over":
            command = [sys.executable, "-c", script, url, SPEC, tmp_path / "d"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            kinds.append(done.stdout.strip())
            assert len(kinds) < 40, " ".join(kinds)
    assert kinds.count("trained") == 3
    assert_same_run(tmp_path / "served", tmp_path / "simulated")


@pytest.mark.parametrize("damage", [b"", b"torn", None], ids=["empty", "other", "short"])
def test_damaged_files_cost_work_and_nothing_else(tmp_path, alone, damage):
    """Every file in the state directory, one after the other, emptied, overwritten or cut short."""
    state = tmp_path / "d"
    damaged = set()
    with gateway(alone, tmp_path / "served") as (_, url):
        for _ in range(60):
            with Device(url, SPEC, state, "board", 0) as device:
                done = device.step(budget_s=0)
            if done.kind == "over":
                break
            for path in sorted(state.iterdir()):
                if path.name not in damaged | {"device.json", "lock"}:
                    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
                    damaged.add(path.name)
                    break
    assert done.kind == "over"
    assert {"work.safetensors", "local.safetensors", "update.safetensors", "scores.json"} <= damaged
    assert_same_run(tmp_path / "served", tmp_path / "simulated")


def test_a_device_that_forgot_who_it_is_joins_as_a_new_one(tmp_path):
    config = write_config(tmp_path, TINY)
    with gateway(config, tmp_path / "served") as (_, url):
        with Device(url, SPEC, tmp_path / "d", "board") as device:
            assert device.step().text == "joined as participant 0"
        (tmp_path / "d" / "device.json").write_text("{")
        with Device(url, SPEC, tmp_path / "d", "board") as device, pytest.raises(ConfigError, match="name-in-use"):
            device.step()
        with Device(url, SPEC, tmp_path / "d", "board-2") as device:
            assert device.step().text == "joined as participant 1"


def test_a_full_disk_is_waited_for(tmp_path, alone):
    """The limit on a file's size stands for the disk's: the real write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        for kind in ("task", "trained", "delivered"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            try:
                done = until(device, "storage")
                assert "cannot write" in str(done)
                assert done.wait_s > 0
                assert not list((tmp_path / "d").glob("*.tmp"))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            until(device, kind)
        until(device, "over")
    assert_same_run(tmp_path / "served", tmp_path / "simulated")


def test_the_time_of_day_does_not_matter(tmp_path, alone, monkeypatch):
    jumps = np.random.default_rng(0)
    monkeypatch.setattr(time, "time", lambda: float(jumps.uniform(0, 4e9)))
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        until(device, "over")
    assert_same_run(tmp_path / "served", tmp_path / "simulated")


class Rude:
    """Something that listens where a gateway should, and gives each connection the same bytes."""

    def __init__(self, answer, port=0):
        self.answer, self.connections = answer, 0
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with peer, suppress(ConnectionError):  # the device hangs up when it has seen enough
                if self.answer:
                    peer.settimeout(5)
                    peer.recv(65536)
                    peer.sendall(self.answer)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def rude(answer, port=0):
    listener = Rude(answer, port)
    try:
        yield listener
    finally:
        listener.close()


def http(status, body=b"", headers=b""):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)


ANSWERS = [
    b"",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    http(200, b"<html>log in to the network first</html>"),
    http(200, b"[" * 100_000),
    http(200, b'{"hello": 1}'),
    http(302, b"", b"Location: http://127.0.0.1:1/\r\n"),
    http(401, b"{}"),
    http(404, b"{}"),
    http(413, b"<html>too large for this proxy</html>"),
    http(500, b"\xff\xfe"),
    http(503, b'{"error": "stopping", "detail": "soon"}', b"Retry-After: 1\r\n"),
    http(507, b'{"error": "storage"}', b"Retry-After: -1e99\r\n"),
]


def test_whatever_answers_instead_of_a_gateway_is_waited_for(tmp_path, alone):
    """A device meets all of them before it has joined, another one with an update to deliver, which then goes on."""
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        until(device, "trained")
    port = int(url.rpartition(":")[2])
    now = [0.0]
    for state in (tmp_path / "new", tmp_path / "d"):
        with Device(url, SPEC, state, "board", 0, clock=lambda: now[0]) as device:
            for answer in ANSWERS:
                with rude(answer, port) as listener:
                    done = device.step()
                    assert done.kind == "away", (answer, done)
                    assert str(done).startswith(f"gateway away ({url}): ")
                    assert listener.connections >= 1
                now[0] += 1000
            assert device.step().kind == "away"  # nothing listens there
    assert (tmp_path / "d" / "update.safetensors").exists()
    process, _ = start_gateway(alone, tmp_path / "served", "--port", port)
    try:
        with Device(url, SPEC, tmp_path / "d", "board", 0) as device:
            assert device.step().kind == "delivered"
            until(device, "over")
    finally:
        end(process)
    assert_same_run(tmp_path / "served", tmp_path / "simulated")


def test_a_tight_loop_does_not_hammer(tmp_path):
    now = [100.0]
    with rude(http(500)) as listener:
        url, rng = f"http://127.0.0.1:{listener.port}", np.random.default_rng(0)
        with Device(url, SPEC, tmp_path / "d", rng=rng, clock=lambda: now[0]) as device:
            waits = []
            for _ in range(12):
                waits.append(device.step().wait_s)
                before = listener.connections
                assert all(device.step().kind == "waiting" for _ in range(100))
                assert listener.connections == before
                now[0] += waits[-1] + 1e-6
            assert listener.connections == 12
    # 0.25 s doubled up to 60 s, and of that the upper half
    shares = [wait / min(0.25 * 2**i, 60) for i, wait in enumerate(waits)]
    assert all(0.5 <= share <= 1 for share in shares)
    assert len({round(share, 6) for share in shares}) > 1


def test_a_task_that_is_cut_short_or_too_long_is_no_task(tmp_path, alone):
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        assert device.step().kind == "joined"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    now = [0.0]
    for answer in (head % 5000 + b"x" * 4000, head % 50_000_000 + b"x" * 10_000_000, http(200, b"x" * 5000)):
        with (
            rude(answer, int(url.rpartition(":")[2])),
            Device(url, SPEC, tmp_path / "d", "board", 0, clock=lambda: now[0]) as device,
        ):
            assert device.step().kind == "away"
        names = {path.name for path in (tmp_path / "d").iterdir()}
        assert names <= {"device.json", "lock", "work.safetensors.damaged"}  # the last one: whole, and no task


def test_who_moves_to_another_run_drops_what_it_began(tmp_path, alone):
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        until(device, "trained", budget_s=0)
    assert (tmp_path / "d" / "local.safetensors").exists()
    with gateway(alone, tmp_path / "other") as (_, url), Device(url, SPEC, tmp_path / "d", "board", 0) as device:
        assert "another run" in str(device.step())
        assert not (tmp_path / "d" / "local.safetensors").exists()
        until(device, "over")
    assert_same_run(tmp_path / "other", tmp_path / "simulated")


def test_a_gateway_that_forgot_the_run_is_joined_again(tmp_path, alone):
    process, url = start_gateway(alone, tmp_path / "served")
    try:
        with Device(url, SPEC, tmp_path / "d", "board", 0) as device:
            until(device, "trained")
            end(process)
            process, _ = start_gateway(alone, tmp_path / "other", "--port", url.rpartition(":")[2])
            assert "session" in str(until(device, "away"))
            assert "another run" in str(until(device, "joined"))
            until(device, "over")
    finally:
        end(process)
    assert_same_run(tmp_path / "other", tmp_path / "simulated")


def test_what_came_too_late_is_dropped(tmp_path):
    """Two devices; one sleeps over the deadline of round 1, which the other one's update closes."""
    server = {"round_deadline_s": 1.0, "min_fit_clients": 1}
    two = ALONE["data"] | {"participants": 2}
    config = write_config(tmp_path, ALONE | {"data": two, "server": server, "evaluation": {"every": 100}})
    with (
        gateway(config, tmp_path / "served") as (_, url),
        Device(url, SPEC, tmp_path / "a", "awake", 0) as awake,
        Device(url, SPEC, tmp_path / "b", "asleep", 1) as asleep,
    ):
        awake.step()
        asleep.step()
        until(awake, "delivered")
        until(asleep, "delivered")
        assert str(until(asleep, "trained")).startswith("trained 3 of 3 steps of round 1")
        until(awake, "over")
        assert "the gateway does not want the update of round 1: wrong-round" in str(until(asleep, "discarded"))
        until(asleep, "over")
    assert edgemeta.load_model(tmp_path / "b" / "personal.safetensors").round == 2


def test_private_state_advances_once_a_round_whatever_is_cut_off(tmp_path, monkeypatch):
    """Each round's work is done twice, by a learner that counts its own steps in a vector that never travels."""
    monkeypatch.setitem(LEARNERS, "counting", COUNTING)
    config = write_config(tmp_path, ALONE | {"phases": [{"algorithm": "counting", "rounds": 3, "local_steps": 2}]})
    process = taught("server", "--config", config, "--port", 0, "--state", tmp_path / "served", log=tmp_path / "log")
    try:
        url = process.stdout.readline().split()[-1]
        for _ in range(3):
            with Device(url, SPEC, tmp_path / "d", "board", 0) as device:
                until(device, "trained")
            (tmp_path / "d" / "update.safetensors").unlink()  # as if the power had gone before its rename
            with Device(url, SPEC, tmp_path / "d", "board", 0) as device:
                until(device, "trained")
                until(device, "delivered")
    finally:
        end(process)
    kept = read_tensors(tmp_path / "d" / "private-000003.safetensors")[0]
    assert kept["count"].tolist() == [6.0]


def test_joins_that_are_refused(tmp_path):
    config = write_config(tmp_path, TINY)
    with gateway(config, tmp_path / "served") as (_, url):
        with Device(url, SPEC, tmp_path / "a", "board", 0) as device:
            assert device.step().kind == "joined"
        refused = {
            "name-in-use": {"name": "board"},
            "partition-taken": {"name": "second", "partition_id": 0},
            "bad-partition-id": {"name": "second", "partition_id": 4},
        }
        for reason, how in refused.items():
            with Device(url, SPEC, tmp_path / reason, **how) as device:
                with pytest.raises(ConfigError, match=reason):
                    device.step()
                assert device.step().kind == "waiting"
        done = command_line("client", "--server", url, "--data", SPEC, "--state", tmp_path / "b", "--name", "board")
        assert done.returncode == 2
        assert "name-in-use" in done.stderr
        assert "by --name NAME" in done.stderr
        assert done.stderr.count("\n") == 2  # it says first what it does


def test_one_state_directory_is_for_one_process(tmp_path):
    with Device("http://127.0.0.1:9", SPEC, tmp_path / "d") as device:
        done = command_line("client", "--server", "http://127.0.0.1:9", "--state", tmp_path / "d")
        assert done.returncode == 2
        assert "another process" in done.stderr
        with pytest.raises(StorageError, match=r"this process has .* open: close\(\) the Device"):
            Device("http://127.0.0.1:9", SPEC, tmp_path / "d")
        assert device.step().kind == "away"
    Device("http://127.0.0.1:9", SPEC, tmp_path / "d").close()


@pytest.mark.parametrize("url", ["localhost:8742", "ftp://x", "http://", "http://x:99999", "http://x/?q=1", ""])
def test_what_is_no_address(tmp_path, url):
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        Device(url, SPEC, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def unreadable():
    raise DataError("cannot read the camera")


def test_data_that_cannot_be_used_is_said_when_joining(tmp_path):
    config = write_config(tmp_path, TINY | {"data": TINY["data"] | {"participants": 12}})
    x, y = np.zeros((30, 8, 8, 3), np.uint8), np.arange(30) % 2
    np.savez(tmp_path / "odd.npz", x=x, y=y, x_test=x, y_test=y, classes=["circle", "kettle"])
    wrong = {
        "does not know .*kettle": tmp_path / "odd.npz",
        "shape": ((x[:, :4], y), (x[:, :4], y)),
        "empty": (x[:0], y[:0]),
        "labels run from 0 to 10": (x, y * 10),
        "cannot read the camera": unreadable,
        "expected a SPEC": 7,
    }
    with gateway(config, tmp_path / "served") as (_, url):
        for i, (message, source) in enumerate(wrong.items()):
            device = Device(url, source, tmp_path / f"d{i}", f"board-{i}")
            with device, pytest.raises(DataError, match=message):
                device.step()
        done = command_line(
            *("client", "--server", url, "--data", tmp_path / "odd.npz", "--state", tmp_path / "c", "--name", "last")
        )
        assert done.returncode == 2
        assert "kettle" in done.stderr


def test_data_that_is_away_for_a_moment_is_waited_for(tmp_path, alone):
    few = {"local_epochs": 1, "batch_size": 4, "algorithm": "fedavg", "rounds": 1}
    config = write_config(tmp_path, ALONE | {"phases": [few], "evaluation": {"every": 100}})
    rng, stick, away = np.random.default_rng(0), tmp_path / "stick.npz", tmp_path / "away.npz"
    x, y = rng.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 10
    classes = edgemeta.load_model(tmp_path / "simulated" / "model.safetensors").classes
    np.savez(stick, x=x, y=y, x_test=x, y_test=y, classes=classes)

    def own():
        with np.load(stick) as kept:
            return (kept["x"], kept["y"]), (kept["x_test"], kept["y_test"])

    with gateway(config, tmp_path / "served") as (_, url):
        with Device(url, stick, tmp_path / "d", "board") as device:
            until(device, "task")
            stick.rename(away)
            assert "waiting for this device's data: no data at" in str(until(device, "data"))
        with Device(url, own, tmp_path / "d", "board") as device:  # the same after the power was away, too
            done = device.step()
            assert (done.kind, "stick.npz" in str(done)) == ("data", True)
            away.rename(stick)
            until(device, "over")


def test_own_data_in_all_its_forms():
    classes, shape, cutting = ("a", "b", "c"), (4, 4, 1), DataConfig(participants=2, partition="iid")

    def own(source):
        return own_part(source, shape, classes, cutting, 0, 1, cut=False)

    train, test = arrays(30), arrays(12, seed=1)
    nested = own((train, test))
    assert (nested.train.size, nested.test.size) == (30, 12)
    assert np.array_equal(own(lambda: (train, test)).train.x, nested.train.x)
    whole = own(train)
    assert whole.train.size + whole.test.size == 30
    assert whole.test.size > 0
    grown = own(tuple(np.concatenate(both) for both in zip(train, test, strict=True)))
    kept = {sample.tobytes() for sample in whole.test.x}
    assert kept <= {sample.tobytes() for sample in grown.test.x}  # no test sample became a training one
    cut = own_part((train, test), shape, classes, cutting, 0, 1, cut=True)
    assert (cut.train.size, cut.test.size) == (15, 6)


def test_data_may_grow_between_tasks(tmp_path):
    few = {"local_epochs": 1, "batch_size": 4, "algorithm": "fedavg", "rounds": 2}
    config = write_config(tmp_path, ALONE | {"phases": [few], "evaluation": {"every": 100}})
    rng = np.random.default_rng(0)
    there = [rng.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 10]

    def camera():
        x, y = there
        return (x, y), (x[:4], y[:4])

    with gateway(config, tmp_path / "served") as (_, url), Device(url, camera, tmp_path / "d", "board") as device:
        assert "trained 5 of 5" in str(until(device, "trained"))
        there[:] = [np.concatenate([part, part]) for part in there]
        until(device, "delivered")
        assert "trained 10 of 10" in str(until(device, "trained"))
        until(device, "over")


def test_the_client_stops_cleanly_and_goes_on(tmp_path):
    slow = {"algorithm": "fedavg", "rounds": 1, "local_steps": 100_000, "batch_size": 4}
    config = write_config(tmp_path, ALONE | {"phases": [slow], "evaluation": {"every": 100}})
    log, local = tmp_path / "log", tmp_path / "d" / "local.safetensors"
    with gateway(config, tmp_path / "served") as (_, url):
        arguments = ("client", "--server", url, "--data", SPEC, "--state", tmp_path / "d", "--name", "board")
        client = start(*arguments, log=log)
        try:
            while "delivered the evaluation of round 0" not in log.read_text():
                time.sleep(0.05)
            steps = [0]
            for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
                said = log.read_text().count("trained")
                while log.read_text().count("trained") == said:
                    time.sleep(0.05)
                client.send_signal(number)
                assert client.wait(timeout=10) == status
                end(client)
                steps.append(int(read_tensors(local)[0]["numbers"][1]))
                client = start(*arguments, log=log)
            shown = [int(step) for step in re.findall(r"trained (\d+) of 100000", log.read_text())]
            assert 0 < shown[0] <= steps[1] < shown[1] <= steps[2]
        finally:
            end(client)
    assert "Traceback" not in log.read_text()


def test_once_does_one_round_and_gives_up_when_it_is_told_to(tmp_path, alone):
    with gateway(alone, tmp_path / "served") as (_, url):
        arguments = ("client", "--server", url, "--data", SPEC, "--state", tmp_path / "d", "--name", "b", "--once")
        first, second = ["evaluation of round 0", "update of round 1"], ["update of round 2", "evaluation of round 2"]
        for expected in (first, second):
            done = command_line(*arguments)
            assert done.returncode == 0
            assert done.stderr.startswith(f"b at {url}: asking for work; state in {tmp_path / 'd'}, data: {SPEC}\n")
            delivered = [line for line in done.stderr.splitlines() if line.startswith("delivered")]
            assert delivered == [f"delivered the {what}" for what in expected]
    began = time.monotonic()
    done = command_line(*arguments, "--for", "0.8", "--state", tmp_path / "e")
    assert (done.returncode, time.monotonic() - began < 5) == (1, True)
    assert f"gateway away ({url}): Connection refused" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: gave up after 0.8 s; what was done is kept. At last: gate")


def test_threads_predict_beside_a_step_and_nobody_uses_what_is_closed(tmp_path, alone):
    failures, count, over = [], [0], threading.Event()

    def watch(device):
        while not over.is_set():
            try:
                found = device.predict(PICTURE)
                assert found.sum() == pytest.approx(1, abs=1e-3)
                count[0] += 1
                time.sleep(0.002)
            except DataError as error:
                if "no model has come" not in str(error):
                    failures.append(error)
                time.sleep(0.001)
            except Exception as error:
                failures.append(error)

    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board") as device:
        watchers = [threading.Thread(target=watch, args=(device,)) for _ in range(3)]
        for thread in watchers:
            thread.start()
        until(device, "over", budget_s=0.01)
        over.set()
        for thread in watchers:
            thread.join(60)
    assert failures == []
    assert count[0] > 10
    for use in (device.step, device.adapt, lambda: device.predict(PICTURE)):
        with pytest.raises(InputError, match="was closed: make a new one"):
            use()
    device.close()


def test_one_folder_has_one_role(tmp_path, alone):
    with pytest.raises(ConfigError, match=r"of a gateway or of a run \(it has run.toml in it\)"):
        Device("http://127.0.0.1:9", SPEC, tmp_path / "simulated")
    with gateway(alone, tmp_path / "served") as (_, url), Device(url, SPEC, tmp_path / "d", "board") as device:
        assert device.step().kind == "joined"
    with pytest.raises(ConfigError, match=r"of a gateway or of a run \(it has runs in it\)"):
        Device(url, SPEC, tmp_path / "served")
    before = sorted((path.name, path.read_bytes()) for path in (tmp_path / "d").iterdir())
    with pytest.raises(ConfigError, match=r"is the folder of a device \(it has device.json in it\)"):
        edgemeta.simulate(ALONE, out=tmp_path / "d")
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "d").iterdir()) == before
