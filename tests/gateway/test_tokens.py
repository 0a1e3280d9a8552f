"""Who may take part: the register of tokens, and what a gateway does about them, over real sockets."""

import errno
import hashlib
import http.client
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from gateways import ACCEPTED, SCORES, Device, Gateway, key_of, no_gateway_left, own_address, refused, update_body
from runs import command_line

from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.refusal import Refused
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.tokens import Tokens, enroll, read_register, revoke, set_operator

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def path(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "devices.json"


@pytest.fixture
def run(path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(path.parent, **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def why(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.reason


def join(gateway, name, token=None, key=None, **fields):
    """Return a device, and its answer to joining, or (status, reason)."""
    device = Device(gateway.port, name, token)
    answer = device.join(key=key or key_of(name), **fields)
    return device, answer if answer[0] == 200 else refused(answer)


def test_what_is_kept_is_a_hash_that_only_its_owner_reads(path):
    old = os.umask(0)
    try:
        assert not enroll(path, "cam", A, 1e9)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert A not in text
    assert json.loads(text)["devices"]["cam"]["tokens"] == [hashlib.sha256(A.encode()).hexdigest()]
    assert read_register(path).devices["cam"].enrolled == 1e9
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {
        "devices.json": 0o600,
        "devices.lock": 0o600,
    }


def test_a_token_names_its_device(path):
    enroll(path, "cam", A, 0)
    enroll(path, "mic", B, 0)
    tokens = Tokens(path)
    assert (tokens.owner(A), tokens.owner(B)) == ("cam", "mic")
    assert why(tokens.owner, C) == why(tokens.owner, A[:-1]) == why(tokens.owner, A + "é") == "bad-token"
    assert why(tokens.owner, hashlib.sha256(A.encode()).hexdigest()) == "bad-token"  # a stolen register opens nothing
    assert why(tokens.owner, None) == why(tokens.owner, "") == "token-required"


def test_enrolling_again_keeps_the_old_token_until_the_new_one_is_used(path):
    enroll(path, "cam", A, 0)
    tokens = Tokens(path)
    assert enroll(path, "cam", B, 1)
    assert tokens.owner(A) == tokens.owner(B) == "cam"
    tokens.use("cam", A)
    assert tokens.owner(A) == tokens.owner(B) == "cam"
    tokens.use("cam", B)
    assert tokens.owner(B) == "cam"
    assert why(tokens.owner, A) == "revoked"
    assert why(tokens.use, "cam", A) == "revoked"


def test_of_three_tokens_the_one_that_was_never_used_goes(path):
    for number, token in enumerate((A, B, C)):
        enroll(path, "cam", token, number)
    tokens = Tokens(path)
    assert tokens.owner(A) == tokens.owner(C) == "cam"
    assert why(tokens.owner, B) == "revoked"


def test_revoked_is_revoked_for_good(path):
    enroll(path, "cam", A, 0)
    enroll(path, "cam", B, 0)
    tokens = Tokens(path)
    assert revoke(path, "cam")
    assert not revoke(path, "cam")
    assert why(tokens.owner, A) == why(tokens.owner, B) == "revoked"
    assert not enroll(path, "cam", C, 0)
    assert tokens.owner(C) == "cam"
    assert why(tokens.owner, A) == why(tokens.owner, B) == "revoked"
    with pytest.raises(ConfigError, match="no device 'mic'"):
        revoke(path, "mic")


def test_tokens_are_required_from_the_first_device_on_and_never_again_not(path):
    tokens, closed = Tokens(path), Tokens(path, required=True)
    assert (tokens.required, closed.required) == (False, True)
    set_operator(path, C)
    assert not tokens.required
    enroll(path, "cam", A, 0)
    assert tokens.required
    revoke(path, "cam")
    assert tokens.required
    assert Tokens(path).required
    path.unlink()
    assert tokens.required
    assert why(tokens.owner, A) == "bad-token"


def test_a_damaged_file_stops_a_start_and_changes_nothing_for_who_has_read_it(path, caplog):
    enroll(path, "cam", A, 0)
    tokens = Tokens(path)
    for text in (path.read_text()[:-20], "[]", '{"format": "edgemeta-devices/9"}', '{"devices": {"cam": 1}}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match="damaged"):
            Tokens(path)
        with pytest.raises(ConfigError, match="damaged"):
            enroll(path, "mic", B, 0)
        assert path.read_text(encoding="latin-1") == text
        assert tokens.owner(A) == tokens.owner(A) == "cam"
    assert len(caplog.records) == 5  # said once for each change


@pytest.mark.parametrize("operation", ["open", "stat", "read"])
def test_a_file_that_cannot_be_read_now_is_read_at_the_next_request(path, caplog, monkeypatch, operation):
    enroll(path, "cam", A, 0)
    tokens = Tokens(path)
    revoke(path, "cam")

    def ill(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, ill)
        assert tokens.owner(A) == tokens.owner(A) == "cam"
        assert len(caplog.records) == 1  # said once
        with pytest.raises(StorageError, match="Input/output error"):
            Tokens(path)
    with pytest.raises(Refused, match="revoked"):
        tokens.owner(A)


def test_a_folder_that_cannot_be_had_is_said(tmp_path):
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StorageError):
        enroll(tmp_path / "state" / "devices.json", "cam", A, 0)


def test_commands_at_the_same_time_lose_nothing(path):
    program = "import sys; from pathlib import Path; from edgemeta.gateway.tokens import enroll\n"
    program += "for k in range(15): enroll(Path(sys.argv[1]), f'{sys.argv[2]}-{k}', f'token {sys.argv[2]} {k}', k)"
    writers = [subprocess.Popen([sys.executable, "-c", program, path, name]) for name in ("a", "b", "c")]
    tokens = Tokens(path)
    while any(writer.poll() is None for writer in writers):
        tokens._current()  # what is read is whole at any time: nothing is logged, and nothing raises
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(tokens._current().devices) == 45


def test_joining_takes_the_devices_own_token(run, path):
    gateway = run()
    enroll(path, "cam", A, 0)  # while it runs
    enroll(path, "mic", B, 0)
    assert join(gateway, "cam")[1] == (401, "token-required")
    assert join(gateway, "cam", C)[1] == (401, "bad-token")
    assert join(gateway, "cam", B)[1] == join(gateway, "stranger", A)[1] == (403, "wrong-device")
    cam, (status, _) = join(gateway, "cam", A)
    assert status == 200
    assert cam.work() == 204
    status, headers, _ = Device(gateway.port, "cam").call("POST", "/v1/join", {})
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert Device(gateway.port, "cam", A).work() == 401  # a token is no session


def test_a_revoked_device_loses_its_session_and_a_new_board_in_its_place_does_not_revive_it(run, path):
    gateway = run(participants=1)
    enroll(path, "cam", A, 0)
    stolen, _ = join(gateway, "cam", A)
    session = stolen.session
    assert stolen.scores() == ACCEPTED
    revoke(path, "cam")
    assert stolen.work() == 401
    assert refused(stolen.update()) == (401, "unknown-session")
    assert join(gateway, "cam", A)[1] == (401, "revoked")
    enroll(path, "cam", B, 0)
    assert stolen.work() == 401
    fresh, (status, answer) = join(gateway, "cam", B, key="the key of the new board")
    assert (status, answer["participant"]) == (200, 0)
    assert fresh.session != session
    assert fresh.work() == ("train", 1)
    assert stolen.work() == 401
    assert fresh.update() == ACCEPTED


def test_a_device_that_is_revoked_while_it_waits_gets_no_work(run, path):
    gateway = run(participants=2)
    enroll(path, "cam", A, 0)
    enroll(path, "mic", B, 0)
    cam, _ = join(gateway, "cam", A)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(cam.work(wait=20)))
    waiting.start()
    revoke(path, "cam")
    join(gateway, "mic", B)  # now there is work
    waiting.join(10)
    assert answers == [401]


def slow_request(gateway, device, what, body):
    """Begin a request, and return a function that ends it and returns the answer's status line."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), 10)
    head = f"POST /v1/rounds/{what} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert b" 100 " in connection.recv(4000)  # it was let in

    def end():
        with connection:
            connection.sendall(body)
            return connection.recv(4000).splitlines()[0]

    return end


SCORED = json.dumps({"metrics": {"samples": 4, "before": SCORES, "after": SCORES, "grid": []}}).encode()


@pytest.mark.parametrize("what", ["0/evaluation", "1/update"])
@pytest.mark.parametrize("how", ["revoked", "replaced", "enrolled anew"])
def test_who_is_shut_out_in_the_middle_of_a_request_is_not_accepted(run, path, what, how):
    gateway = run(participants=1)
    enroll(path, "cam", A, 0)
    cam, _ = join(gateway, "cam", A)
    if what == "1/update":
        assert cam.scores() == ACCEPTED
    end = slow_request(gateway, cam, what, SCORED if what == "0/evaluation" else update_body(1.0, 1))
    if how != "replaced":
        revoke(path, "cam")
    if how == "enrolled anew":
        enroll(path, "cam", B, 1)
    fresh, answer = join(gateway, "cam", B if how == "enrolled anew" else A, key="of the new board")
    assert answer == (401, "revoked") if how == "revoked" else answer[0] == 200
    assert b" 401 " in end()
    assert not list(gateway.path.glob(f"rounds/*/{what[2:]}*"))
    if how != "revoked":
        assert fresh.work() == (("evaluate", 0) if what == "0/evaluation" else ("train", 1))


def test_a_token_that_is_revoked_while_it_waits_for_its_turn_does_not_join(run, path, monkeypatch):
    gateway = run(participants=2)
    enroll(path, "mic", B, 0)
    enroll(path, "cam", A, 0)
    mic, _ = join(gateway, "mic", B)
    asked, done, work = threading.Event(), threading.Event(), Coordinator.work

    def slow_work(*arguments):
        asked.set()
        assert done.wait(10)
        return work(*arguments)

    monkeypatch.setattr(Coordinator, "work", slow_work)
    answers = []
    threads = [threading.Thread(target=mic.work)]
    threads += [threading.Thread(target=lambda: answers.append(join(gateway, "cam", A)[1]))]
    threads[0].start()
    assert asked.wait(5)
    threads[1].start()
    time.sleep(0.2)  # until it stands in line
    revoke(path, "cam")
    done.set()
    for thread in threads:
        thread.join(10)
    assert answers == [(401, "revoked")]
    assert mic.status()["joined"] == 1


def test_a_number_is_kept_for_a_device_until_it_is_revoked(run, path):
    enroll(path, "cam", A, 0, 1)
    with pytest.raises(ConfigError, match="participant 1 is kept for 'cam'"):
        enroll(path, "mic", B, 0, 1)
    enroll(path, "mic", B, 0)
    assert not enroll(path, "cat", C, 0)
    gateway = run(participants=3)
    assert join(gateway, "mic", B, partition_id=1)[1] == (409, "partition-taken")
    assert join(gateway, "mic", B)[1][1]["participant"] == 0
    assert join(gateway, "cat", C, partition_id=0)[1][1]["participant"] == 2
    enroll(path, "cam", "d" * 64, 1)  # a new token keeps it, too
    assert join(gateway, "cam", "d" * 64, partition_id=1)[1][1]["participant"] == 1
    revoke(path, "cam")
    enroll(path, "dog", "e" * 64, 2, 1)  # in another run, say
    assert read_register(path).devices["dog"].number == 1


def test_a_new_key_with_the_token_takes_the_old_ones_place(run, path, caplog):
    gateway = run()
    enroll(path, "cam", A, 0)
    before, (_, first) = join(gateway, "cam", A)
    again, (_, second) = join(gateway, "cam", A)
    assert second == first  # the same key: the same session
    assert not [record for record in caplog.records if "new key" in record.getMessage()]
    after, (_, third) = join(gateway, "cam", A, key="of a card that is new")
    assert third["participant"] == first["participant"]
    assert third["session"] != first["session"]
    assert before.work() == again.work() == 401
    assert after.work() == 204
    assert [record for record in caplog.records if "new key" in record.getMessage()]
    gateway.stop()
    gateway.start()
    after.port = gateway.port
    assert after.work() == 204


def test_rotation_keeps_the_session_while_the_old_token_is_good(run, path):
    gateway = run()
    enroll(path, "cam", A, 0)
    cam, (_, first) = join(gateway, "cam", A)
    enroll(path, "cam", B, 1)
    assert cam.work() == 204
    assert join(gateway, "cam", A)[1] == (200, first)
    assert join(gateway, "cam", B)[1] == (200, first)
    assert cam.work() == 204
    assert join(gateway, "cam", A)[1] == (401, "revoked")


def test_devices_from_before_the_first_token_join_again_with_one(run, path):
    gateway = run()
    cam = gateway.device("cam")
    assert cam.work() == 204
    enroll(path, "cam", A, 0)
    assert cam.work() == 401
    assert join(gateway, "cam")[1] == (401, "token-required")
    assert join(gateway, "cam", A)[1][1]["participant"] == cam.participant


def test_no_token_is_logged_shown_or_kept(run, path, caplog):
    caplog.set_level(logging.DEBUG)
    gateway = run()
    enroll(path, "cam", A, 0)
    set_operator(path, C)
    cam, (_, answer) = join(gateway, "cam", A)
    said = [join(gateway, "cam", B), join(gateway, "mic", A), Device(gateway.port, "x", A).call("GET", f"/{A[:9]}")]
    revoke(path, "cam")
    said += [cam.work(), join(gateway, "cam", A), Device(gateway.port, "x", B).call("GET", "/v1/work")]
    status = Device(gateway.port, "x").status()
    assert status["refusals"]["revoked"] == 1
    everything = caplog.text + json.dumps(status) + repr([one[1:] if isinstance(one, tuple) else one for one in said])
    for file in path.parent.rglob("*"):
        everything += file.read_text(errors="replace") if file.is_file() else ""
    for secret in (A, B, C, answer["session"], key_of("cam")):
        assert secret not in everything


def test_the_operators_token_opens_the_status_from_other_machines_and_a_devices_does_not(run, path):
    address = own_address()
    if address is None:
        pytest.skip("NOT TESTED: this machine has no address but loopback")
    gateway = run(host="0.0.0.0", insecure=True)
    enroll(path, "cam", A, 0)
    cam, _ = join(gateway, "cam", A)

    def status(token):
        peer = http.client.HTTPConnection(address, gateway.port, timeout=10)
        peer.request("GET", "/status.json", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = peer.getresponse()
        said = json.loads(answer.read())
        peer.close()
        return (200, said["joined"]) if answer.status == 200 else refused((answer.status, said))

    assert status(C) == (403, "operator-only")
    set_operator(path, C)
    assert status(C) == (200, 1)
    assert status(None) == status(A) == status(cam.session) == (403, "operator-only")
    set_operator(path, B)
    assert status(C) == (403, "operator-only")
    assert join(gateway, "cam", B)[1] == (401, "bad-token")  # and it is no device's


@pytest.mark.slow
def test_the_commands(tmp_path):
    def edgemeta(*arguments):
        return command_line(*arguments, cwd=tmp_path)

    done = edgemeta("enroll", "cam")
    assert (done.returncode, "--url" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())
    done = edgemeta("enroll", "cam", "--url", "http://127.0.0.1:8742")
    assert done.returncode == 0
    assert done.stderr == f"{tmp_path / 'edgemeta-state'} is the site of a gateway from now on\n"
    file = tmp_path / "cam.join"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    done = edgemeta("enroll", "cam", "--url", "http://127.0.0.1:8742")
    assert (done.returncode, "cam.join exists" in done.stderr) == (2, True)
    assert file.read_bytes() == before
    file.unlink()
    done = edgemeta("enroll", "cam", "--url", "http://gateway.local:8742")
    assert done.returncode == 0
    assert "earlier token stays good" in done.stderr
    assert "not encrypted" in done.stderr
    for name in ("../cam", "", "-x", "a b", "x" * 65):
        done = edgemeta("enroll", "--url", "http://127.0.0.1:8742", "--", name)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    for url in ("gateway", "ftp://gateway", "http://[::1", "https://gateway:8742"):
        done = edgemeta("enroll", "mic", "--url", url)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), url
    assert "a newer token is not used yet" in edgemeta("devices").stdout
    done = edgemeta("enroll", "pump", "--url", "http://127.0.0.1:8742", "--partition-id", 3)
    assert (done.returncode, "3 is kept" in edgemeta("devices").stdout) == (0, True), done.stderr
    done = edgemeta("enroll", "pond", "--url", "http://127.0.0.1:8742", "--partition-id", 3)
    assert (done.returncode, "kept for 'pump'" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "pond.join").exists()
    Roster(tmp_path / "edgemeta-state" / "roster.json", 9, "salt").join("pump", "0123456789abcdef", 5)
    for name, number in (("pump", 4), ("pond", 5)):
        (tmp_path / f"{name}.join").unlink(missing_ok=True)
        done = edgemeta("enroll", name, "--url", "http://127.0.0.1:8742", "--partition-id", number)
        assert (done.returncode, "'pump' has joined as participant 5" in done.stderr) == (2, True), done.stderr
    register = json.loads((tmp_path / "edgemeta-state" / "devices.json").read_text())
    del register["devices"]["pump"]
    (tmp_path / "edgemeta-state" / "devices.json").write_text(json.dumps(register))
    assert edgemeta("revoke", "cam").returncode == 0
    listed = edgemeta("devices").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["cam", "pump"]  # pump has joined, and has no token
    assert ("revoked" in listed.splitlines()[0], "without a token" in listed.splitlines()[1]) == (True, True)
    assert edgemeta("revoke", "mic").returncode == 2
    done = edgemeta("operator-token")
    token = done.stdout.strip()
    assert (len(token), token in done.stderr) == (64, False)
    assert Tokens(tmp_path / "edgemeta-state" / "devices.json").is_operators(token)
