"""Board profiles, the memory guard, pacing, and a word before a round is wasted."""

import logging
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gateways import Device as RawDevice
from gateways import Gateway, no_gateway_left
from processes import end
from runs import arrays, command_line

import edgemeta
from edgemeta.device.guard import Guard, NoMemory, free_mb, needed_mb, total_mb
from edgemeta.device.profile import Profile, read_profile
from edgemeta.errors import ConfigError
from edgemeta.nn import build

NETWORK = build("mlp", (3,), 2)
DEVICES = Path(edgemeta.__file__).parent.parent / "devices"
BOARD_MB = {"pi-zero-2w": 416, "pi-3": 900, "pi-4": 900, "pi-5": 1900, "x86-gateway": 3000}  # smallest of its kind


def written(tmp_path, text):
    path = tmp_path / "profile.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BOARD_MB)
def test_each_board_has_a_profile_that_leaves_it_room(name):
    profile = read_profile(DEVICES / f"{name}.toml")
    assert 90 < profile.memory_mb < 0.75 * BOARD_MB[name]
    assert profile.nice > 0
    network = build("cnn-small", (32, 32, 3), 10)
    network.threads = profile.threads
    assert 60 + needed_mb(network, 32, 1000) < profile.memory_mb  # 60: Python with NumPy and Pillow


def test_there_is_a_profile_for_each_file():
    assert {path.stem for path in DEVICES.glob("*.toml")} == set(BOARD_MB)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("thread = 2", "did you mean 'threads'?"),
        ("threads = 0", "threads is 0: expected at least 1"),
        ("threads = 1000", "at most 64"),
        ("threads = 1.5", "expected a whole number"),
        ("nice = -5", "expected at least 0"),
        ("memory_mb = 8", "expected at least 64"),
        ("memory_mb = 100000000", "and this machine has"),
        ("hold_s = 90", "at most 60"),
        ("upload_kb_s = 0", "expected at least 40"),
        ("threads = ", "no TOML file"),
    ],
)
def test_impossible_limits_are_refused(tmp_path, text, says):
    path = written(tmp_path, text)
    done = command_line("client", "--server", "http://127.0.0.1:9", "--profile", path, "--state", tmp_path / "state")
    assert done.returncode == 2
    assert says in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_profile_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the profile"):
        read_profile(tmp_path / "none.toml")


PEAK = """
import sys
import numpy as np
from edgemeta.config import EvaluationConfig, PhaseConfig
from edgemeta.fed.client import client_update
from edgemeta.meta import Samples, evaluate
from edgemeta.device.guard import Guard, needed_mb, used_mb
from edgemeta.nn import build

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

name, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
network = build(name, (32, 32, 3), 10)
network.threads = threads
rng = np.random.default_rng(0)
small = build("mlp", (4,), 2)
small.loss_and_grad(small.init(0), np.zeros((4, 4), np.float32), np.zeros(4, np.int64))
before = used_mb()
data = Samples(rng.integers(0, 256, (300, 32, 32, 3), np.uint8), rng.integers(0, 10, 300, np.int64))
theta = network.init(0)
recipe = PhaseConfig(algorithm="fomaml", local_steps=2, batch_size=batch, momentum=0.9)
client_update(network, recipe, {"theta": theta}, {}, data, np.random.default_rng)
evaluate(network, theta, data, data, EvaluationConfig(), batch, rng)
print(peak() - before, needed_mb(network, batch, 300))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="NOT TESTED: peaks, as there is no /proc")
@pytest.mark.parametrize(("name", "batch", "threads"), [("cnn", 32, 1), ("cnn", 32, 4), ("cnn-small", 64, 2)])
def test_the_estimate_is_above_the_measured_peak_and_not_far(name, batch, threads):
    command = [sys.executable, "-c", PEAK, name, str(batch), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, estimate = map(float, done.stdout.split())
    assert peak < estimate < 3 * peak


def test_the_guard_speaks_before_the_kernel_does():
    network = build("cnn", (32, 32, 3), 10)
    Guard(None).check(network, 4, 10)
    with pytest.raises(NoMemory, match=r"a step of cnn at batch size 32 .* memory_mb in the profile is 64"):
        Guard(64).check(network, 32, 10)
    with pytest.raises(NoMemory, match="MB are free here"):
        Guard(None).check(network, 10**8, 10)
    assert 0 < free_mb() < total_mb() < math.inf


def test_a_control_groups_limit_is_known(tmp_path):
    """Under the tool that limits a board's memory, where there is one."""
    if "EDGEMETA_PI_RUN" not in os.environ:
        pytest.skip("NOT TESTED: 100 MB, as EDGEMETA_PI_RUN names no tool")
    code = "from edgemeta.device.guard import free_mb, total_mb; print(total_mb(), free_mb())"
    command = [os.environ["EDGEMETA_PI_RUN"], "100", "100", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total, free = map(float, done.stdout.split())
    assert total == 100
    assert 40 < free < 95


def device(gateway, tmp_path, profile=None, **more):
    """Return a real device for a gateway of one participant with three inputs and two classes."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = np.arange(60, dtype=np.int64) % 2
    data = ((x[:40], y[:40]), (x[40:], y[40:]))
    return edgemeta.Device(
        f"http://127.0.0.1:{gateway.port}", data, tmp_path / "device", "cam", profile=profile, **more
    )


def until(device, kind, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done = device.step(0.0)
        if done.kind == kind:
            return done
        time.sleep(min(done.wait_s, 0.3))
    raise AssertionError(f"no '{kind}' came")


def test_a_task_that_does_not_fit_is_refused_and_asked_for_again(tmp_path, monkeypatch):
    gateway = Gateway(tmp_path / "state", participants=1, min_fit_clients=1, network=NETWORK)
    with no_gateway_left([gateway]), device(gateway, tmp_path) as small:
        with monkeypatch.context() as patch:
            patch.setattr("edgemeta.device.guard.free_mb", lambda: 5.0)
            done = until(small, "memory")
            assert re.search(r"takes some \d+ MB, and [5-8] MB are free here: end other programs", str(done))
            assert 0 < done.wait_s <= 60
        assert str(until(small, "evaluated")).startswith("round 0:")  # when there is room again


def test_a_board_that_is_too_slow_says_so_while_the_round_is_open(tmp_path, caplog):
    gateway = Gateway(tmp_path / "state", participants=1, min_fit_clients=1, network=NETWORK, round_deadline_s=10.0)
    now = 0.0

    def clock():  # each look at it costs two seconds, and so does a step
        nonlocal now
        now += 2.0
        return now

    with (
        no_gateway_left([gateway]),
        device(gateway, tmp_path, clock=clock) as slow,
        caplog.at_level(logging.WARNING, "edgemeta"),
    ):
        until(slow, "delivered")
        assert not caplog.records
        until(slow, "task")
        assert slow.step(9.0).kind == "trained"  # half of the steps, so the round is not over yet
        (said,) = [record.getMessage() for record in caplog.records]
        slow.step(1e9)
        assert len(caplog.records) == 1  # said once
    assert said.startswith("round 1: the 8 steps that are left take 16 s here (2 s each), and it is open for ")
    assert "this update will come too late" in said


@pytest.mark.slow
def test_a_paced_upload_takes_its_time(tmp_path):
    """60 kB at 100 kB/s: 0.6 s."""
    from edgemeta.device.calls import Gateway as Calls

    gateway = Gateway(tmp_path / "state")
    path = tmp_path / "body"
    path.write_bytes(bytes(60_000))
    with no_gateway_left([gateway]):
        start = time.monotonic()
        answer = Calls(f"http://127.0.0.1:{gateway.port}", upload_kb_s=100).call("POST", "/v1/join", body=path)
        assert answer.status == 413  # a join of 60,000 bytes: the gateway had to take it in to say so
        assert time.monotonic() - start >= 0.59


def test_a_task_says_how_long_it_is_waited_for(tmp_path):
    gateway = Gateway(tmp_path / "state", round_deadline_s=40)
    with no_gateway_left([gateway]):
        gateway.device("other")
        asking = gateway.device("cam")
        assert isinstance(asking, RawDevice)
        _, headers, _ = asking.call("GET", "/v1/work?wait=5")
        assert 35 <= int(headers["X-Edgemeta-Seconds-Left"]) <= 40


def test_a_profiles_threads_change_no_bits(tmp_path):
    x, y = arrays(40)
    network = build("cnn-small", (4, 4, 1), 3)
    theta = network.init(0)
    one = network.loss_and_grad(theta, x, y)[1]
    network.threads = read_profile(written(tmp_path, "threads = 3")).threads
    assert np.array_equal(network.loss_and_grad(theta, x, y)[1], one)
    assert Profile().threads == 1


@pytest.mark.slow
def test_the_client_is_nice(tmp_path):
    path = written(tmp_path, "nice = 7")
    command = [sys.executable, "-m", "edgemeta", "client", "--server", "http://127.0.0.1:9", "--profile", str(path)]
    client = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert "asking for work" in client.stderr.readline()
        assert "gateway away" in client.stderr.readline()
        assert os.getpriority(os.PRIO_PROCESS, client.pid) == 7
    finally:
        end(client)


def test_a_device_keeps_to_its_profile(tmp_path):
    gateway = Gateway(tmp_path / "state", participants=2, network=NETWORK)
    profile = written(tmp_path, "threads = 3\npoll_s = 120\n")
    with no_gateway_left([gateway]), device(gateway, tmp_path, profile) as patient:
        until(patient, "joined")
        assert patient._run.network.threads == 3
        assert 120 <= until(patient, "idle").wait_s <= 150  # where the gateway says 5, as the other one is missing
