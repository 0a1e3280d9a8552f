"""What one peer may cost a gateway: descriptors, half uploads, writes, lines; with real processes and raw sockets."""

import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest
from gateways import ACCEPTED, Device, Gateway, key_of, no_gateway_left, refused, update_body, wait_for
from processes import RUN, server

from edgemeta.fed.runs import run_of
from edgemeta.gateway.tokens import enroll

TOKEN = "a" * 64
DESCRIPTORS = 160  # of a gateway here: (160 - 128) / 2 = 16 connections, 1 of them in reserve, 7 of an address


@pytest.fixture
def run(tmp_path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(tmp_path / "state", **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


@contextmanager
def few_descriptors(folder, *options, config=RUN):
    """Run a gateway that may open few files; give its process and port, or None over TLS."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    try:
        with server(folder, *options, config=config) as (process, port):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            yield process, port
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def test_a_flood_of_connections_costs_a_few_descriptors_and_a_few_lines_and_devices_go_on(tmp_path):
    with few_descriptors(tmp_path) as (process, port), ExitStack() as stack:
        devices = [Device(port, name) for name in "ab"]
        for device in devices:
            assert device.join()[0] == 200
        for _ in range(3):
            for _ in range(200):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            assert descriptors(process) < DESCRIPTORS - 64  # which the run needs for itself
            assert devices[0].call("GET", "/healthz")[0] == 200
        for device in devices:
            assert device.call("GET", "/v1/work?wait=5")[0] == 200
            assert device.scores() == ACCEPTED
        assert devices[0].status()["refusals"]["too-many-connections"] > 500
        assert process.poll() is None
        log = (tmp_path / "log").read_text()
        assert "at most 16 connections at a time, as this process may open 160 files" in log
        assert len(log.splitlines()) < 12


def test_one_device_that_reads_slowly_on_many_connections_keeps_nobody_out(tmp_path):
    with few_descriptors(tmp_path, "--set", "model.input_shape=[3000]") as (process, port), ExitStack() as stack:
        slow, other = Device(port, "slow"), Device(port, "other")
        assert slow.join()[0] == other.join()[0] == 200
        start = f"GET /v1/work HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {slow.session}\r\n\r\n".encode()
        for _ in range(100):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.connect(("127.0.0.1", port))
            reader.sendall(start)
        assert reader.recv(15) == b"HTTP/1.1 200 OK"  # the newest one is the device's
        wait_for(lambda: descriptors(process) < 40)
        assert other.call("GET", "/v1/work")[0] == 200
        assert other.scores() == slow.scores() == ACCEPTED
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_process_that_may_open_too_few_files_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "DESCRIPTORS", 100)
    with few_descriptors(tmp_path) as (process, _):
        assert process.wait(10) == 2
    assert "this process may open 100 files at a time, of which the run takes 128" in (tmp_path / "log").read_text()


def test_of_a_devices_uploads_the_newest_goes_on_and_no_other_half_stays(run):
    gateway = run()
    device, other = gateway.devices()
    body = update_body(4.0, 1)
    head = f"POST /v1/rounds/1/update HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"

    def halves():
        return sorted(path.name.partition("-")[0] for path in (run_of(gateway.path) / "incoming").iterdir())

    with ExitStack() as stack:
        uploads = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 5)) for _ in range(4)]
        for upload in uploads:
            upload.sendall(head.encode() + body[:10])
            time.sleep(0.05)
        for upload in uploads[:3]:
            with suppress(ConnectionResetError):
                assert upload.recv(100) == b""
        assert len(halves()) <= 1
        uploads[3].sendall(body[10:])
        assert uploads[3].recv(100).startswith(b"HTTP/1.1 200 ")
    assert other.update(8.0) == ACCEPTED
    assert not halves()
    assert device.work() == ("evaluate", 1)
    assert device.theta[0] == 6.0


def test_new_keys_under_one_token_are_written_and_logged_now_and_then(run, tmp_path, caplog):
    gateway = run()
    enroll(gateway.path / "devices.json", "cam", TOKEN, 0)
    roster, written = run_of(gateway.path) / "roster.json", set()
    answers = []
    for number in range(30):
        answers.append(Device(gateway.port, "cam", TOKEN).join(key=f"{number:016d}"))
        written.add(roster.stat().st_mtime_ns)
    assert [status for status, _ in answers] == [200, 200] + [503] * 28  # the first key, and another one
    assert {refused(answer) for answer in answers[2:]} == {(503, "too-often")}
    assert len(written) == 2
    assert len([record for record in caplog.records if "new key" in record.getMessage()]) == 1
    assert Device(gateway.port, "cam", TOKEN).join(key=f"{1:016d}")[0] == 200  # who is in comes in again
    status, headers, _ = Device(gateway.port, "cam", TOKEN).call(
        "POST", "/v1/join", {"name": "cam", "version": 1, "key": key_of("cam")}
    )
    assert (status, int(headers["Retry-After"]) > 0) == (503, True)


def test_devices_that_wait_give_way_where_places_are_scarce_and_the_status_names_the_limit(tmp_path):
    few = RUN.replace("participants = 2", "participants = 40")
    with few_descriptors(tmp_path, config=few) as (_, port), ExitStack() as stack:
        devices = [Device(port, f"cam-{k}") for k in range(15)]
        for device in devices:
            assert device.join()[0] == 200

        def waited(device):
            began = time.monotonic()
            status, headers, _ = device.call("GET", "/v1/work?wait=2")
            return time.monotonic() - began > 1.8, status, headers["Retry-After"]

        with ThreadPoolExecutor(14) as threads:
            answers = sorted(threads.map(waited, devices[:14]))
        assert answers[0] == (False, 204, "5")  # beyond three in four of 15
        assert answers[-1] == (True, 204, "1")
        assert 2 <= sum(not long for long, _, _ in answers) <= 7
        for device in devices:  # each with an upload under way: 15 of 16, and the last one is the reserve
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            head = f"POST /v1/rounds/1/update HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {device.session}\r\n"
            peer.sendall(f"{head}Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n".encode())
        wait_for(lambda: devices[0].call("GET", "/healthz")[0] == 200)
        status, _, said = Device(port, "nobody").call("GET", "/status.json")
        assert (status, said["connections"]["most"]) == (200, 16)
