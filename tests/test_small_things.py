"""Small things that cost an evening: addresses, folders, starts that fail, models whose classes stand otherwise."""

import logging
import os
import signal
import socket
import time

import numpy as np
import pytest
from processes import RUN, server
from runs import TINY, command_line

import edgemeta
from edgemeta import api
from edgemeta.cli import commands
from edgemeta.device.calls import Away, Gateway
from edgemeta.errors import ConfigError
from edgemeta.link.address import gateway_address, with_port
from edgemeta.link.notify import beating
from edgemeta.meta import TrainedModel
from edgemeta.nn import build


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://gateway.local", "http://gateway.local:8742"),
        ("https://gateway.local/edge", "https://gateway.local:8742/edge"),
        ("https://gateway.local:443", "https://gateway.local:443"),
        ("http://[fe80::1%25eth0]", "http://[fe80::1%25eth0]:8742"),
    ],
)
def test_a_url_without_a_port_means_a_gateways(url, full):
    assert with_port(url) == full
    assert gateway_address(full).port in (8742, 443)


def test_the_zone_of_an_address_stays_on_this_machine():
    assert gateway_address("http://[fe80::1%25eth0]:1").host == "fe80::1%eth0"
    heard = []
    gateway = Gateway("http://[fe80::1%eth0]:1")
    gateway._connection.connect = lambda: setattr(gateway._connection, "sock", socket.socket())
    gateway._connection.send = heard.append
    with pytest.raises(Away):
        gateway.call("GET", "/")
    assert b"Host: [fe80::1]:1\r\n" in heard[0]


def run_command(*arguments):
    return commands.main([*map(str, arguments)], "edgemeta", standalone_mode=False)


def test_only_what_makes_a_site_makes_one_and_other_folders_are_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = (["devices"], ["devices", "hold", "a"], ["devices", "release", "a"], ["revoke", "a"], ["run", "list"])
    for command in refused:
        with pytest.raises(ConfigError, match=r"there is no site of a gateway in .*: give the gateway's folder"):
            run_command(*command, "--state", "s")
    assert not (tmp_path / "s").exists()
    (tmp_path / "empty").mkdir()
    makes = (["operator-token"], ["enroll", "a", "--url", "http://127.0.0.1:1"])
    for folder, command in zip(("s", "empty"), makes, strict=True):
        run_command(*command, "--state", folder)
        assert f"{folder} is the site of a gateway from now on" in capsys.readouterr().err
        run_command("devices", "--state", folder)
        assert "from now on" not in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    for command in (*refused, *makes, ["tls"], ["server"]):
        with pytest.raises(ConfigError, match="is no site of a gateway, and not empty"):
            run_command(*command, "--state", "other")
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


@pytest.mark.slow
def test_a_start_that_fails_claims_nothing_and_a_hang_up_is_a_clean_stop(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "run.toml").write_text(RUN)
        done = command_line("server", "--config", "run.toml", "--port", port, "--state", "s", cwd=tmp_path)
        assert (done.returncode, f"cannot listen on 127.0.0.1 port {port}" in done.stderr) == (2, True)
        assert not (tmp_path / "s").exists()
    with server(tmp_path, "--state", "s", "--set", "data.participants=3") as (process, port):
        assert "is the site of a gateway from now on" in (tmp_path / "log").read_text()
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            peer.shutdown(socket.SHUT_WR)
            head, _, body = b"".join(iter(lambda: peer.recv(4096), b"")).partition(b"\r\n\r\n")
            assert (head.split()[1], b"Content-Length: 1" in head, body) == (b"200", True, b"")
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0
    assert "stopped: what was accepted is kept" in (tmp_path / "log").read_text()


def test_a_start_takes_classes_by_name(tmp_path, caplog):
    network = build("mlp", (2, 2, 1), 3)
    theta = network.init(0)
    TrainedModel(network, theta, ("a", "b", "c")).save(tmp_path / "m")
    same = api.initial(network, 1, tmp_path / "m", ("a", "b", "c"))
    assert (same.tobytes(), caplog.text) == (theta.tobytes(), "")
    picture = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1) / 4
    before = TrainedModel(network, theta, ("a", "b", "c")).predict(picture)[0]
    turned = TrainedModel(network, api.initial(network, 1, tmp_path / "m", ("c", "d", "a")), ("c", "d", "a"))
    np.testing.assert_allclose(turned.predict(picture)[0], before[[2, 1, 0]], rtol=1e-6)
    assert "are taken by name; new to it: d" in caplog.text


def test_a_start_for_a_run_that_goes_on_is_not_looked_at_and_that_is_said(tmp_path, caplog):
    short = TINY | {"phases": [{"algorithm": "fedavg", "rounds": 1, "local_steps": 1}]}
    first = edgemeta.simulate(short, out=tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        again = edgemeta.simulate(short, out=tmp_path / "out", init=tmp_path / "gone")
    assert "a run that goes on: --init (init=) is for one that begins" in caplog.text
    assert again.model.theta.tobytes() == first.model.theta.tobytes()


def test_the_watchdog_hears_of_a_process_that_sleeps(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with beating() as turn:
            turn()
            began = time.monotonic()
            for _ in range(4):  # twice in the manager's time, while nothing is done here
                assert manager.recv(100) == b"WATCHDOG=1"
            assert time.monotonic() - began < 1
            monkeypatch.setattr("edgemeta.link.notify.LONGEST_TURN_S", 0.0)  # as if it were stuck
            time.sleep(0.15)
            manager.setblocking(False)
            while True:
                try:
                    manager.recv(100)
                except BlockingIOError:
                    break
            time.sleep(0.25)
            with pytest.raises(BlockingIOError):
                manager.recv(100)
