"""The systemd units, as systemd judges them, and what our processes tell it."""

import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from processes import SPEC, end, write_config
from runs import TINY

import edgemeta
from edgemeta.bench.loopback import gateway, start
from edgemeta.cli import commands
from edgemeta.link.notify import notify, watchdog_s

DEVICES = Path(edgemeta.__file__).parent.parent / "devices"
UNITS = ["edgemeta-server.service", "edgemeta-client.service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="NOT TESTED: the units, as there is no systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name, tmp_path):
    unit = tmp_path / name
    unit.write_text((DEVICES / name).read_text().replace("/opt/edgemeta/bin/edgemeta", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]  # 2.0 of 10, "OK"
    secure = subprocess.run(command, capture_output=True, text=True)
    assert secure.returncode == 0, secure.stdout


@pytest.mark.parametrize("name", UNITS)
def test_the_units_run_commands_that_there_are(name):
    (line,) = [line for line in (DEVICES / name).read_text().splitlines() if line.startswith("ExecStart=")]
    _, command, *rest = line.split()
    known = {option for parameter in commands.commands[command].params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Return a socket that hears what systemd would."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    yield listener
    listener.close()


def test_gateway_and_device_say_that_they_are_ready_and_alive(tmp_path, manager):
    config = write_config(tmp_path, TINY)
    with gateway(config, tmp_path / "served") as (_, url):
        assert {manager.recv(100) for _ in range(4)} == {b"READY=1", b"WATCHDOG=1"}
    manager.setblocking(False)
    with suppress(BlockingIOError):  # what the gateway has said since
        while manager.recv(100):
            pass
    manager.settimeout(10)
    device = start("client", "--server", url, "--data", SPEC, "--state", tmp_path / "device", log=tmp_path / "log")
    try:
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    finally:
        end(device)


def test_without_a_manager_nothing_is_said(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notify("READY=1")
    assert watchdog_s() is None
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify("READY=1")  # a manager that has gone is no reason to stop
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_s() == 15
