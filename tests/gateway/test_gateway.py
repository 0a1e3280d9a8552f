"""The gateway over real sockets: a whole run, everything that is refused, faults, and what outlives a restart."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from gateways import (
    ACCEPTED,
    NETWORK,
    SCORES,
    SIZE,
    Device,
    Gateway,
    no_gateway_left,
    own_address,
    refused,
    safetensors,
    update_body,
    wait_for,
)
from processes import server
from runs import command_line

from edgemeta.config import EvaluationConfig
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.messages import admit_evaluation
from edgemeta.fed.refusal import Refused
from edgemeta.fed.runs import run_of
from edgemeta.link.address import is_loopback
from edgemeta.logs import Seldom
from edgemeta.nn import Dense, Model


@pytest.fixture
def run(tmp_path):
    """Return a function that starts a gateway in a folder of the test's own; all are stopped at the end."""
    gateways = []

    def start(**settings):
        gateways.append(Gateway(settings.pop("path", tmp_path / "state"), **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def incoming(gateway):
    return list((run_of(gateway.path) / "incoming").iterdir())


def test_a_whole_run(run):
    gateway = run()
    first, second = gateway.device("first"), gateway.device("second")
    assert (first.participant, second.participant) == (0, 1)
    assert first.work(wait=5) == ("evaluate", 0)
    assert first.task["layout"] == NETWORK.layout.fingerprint
    assert first.theta == [0.0] * SIZE
    assert first.scores() == second.scores() == ACCEPTED
    assert first.work() == second.work() == ("train", 1)
    assert json.loads(first.task["recipe"])["algorithm"] == "fedavg"
    assert first.update(4.0, samples="10") == ACCEPTED
    assert first.work() == 204
    assert second.update(8.0, samples="30") == ACCEPTED
    assert first.work() == ("evaluate", 1)
    assert first.theta == [7.0] * SIZE  # 10/40 * 4 + 30/40 * 8
    assert first.scores(1) == second.scores(1) == ACCEPTED
    status, _, answer = first.call("GET", "/v1/work?wait=9")
    assert refused((status, answer)) == (410, "run-over")
    _, headers, model = first.call("GET", "/v1/model")
    assert struct.unpack(f"<{SIZE}f", model[-4 * SIZE :]) == (7.0,) * SIZE
    assert model == (gateway.path / "model.safetensors").read_bytes()
    assert headers["Content-Length"] == str(len(model))
    assert [record["round"] for record in gateway.records] == [0, 1]
    assert not incoming(gateway)


def test_joining_tells_all_that_a_device_needs(run):
    gateway = run(participants=3, held_out=1, rounds=7)
    status, answer = Device(gateway.port, "kitchen-cam").join(partition_id=1)
    assert status == 200
    assert answer.pop("session")
    assert answer == {
        "protocol": 1,
        "participant": 1,
        "last_round": 7,
        "data": {
            "participants": 3,
            "held_out": 1,
            "partition": "shards:2",
            "validation": 0.0,
            "label_noise": 0.0,
            "pixel_noise": 0.0,
            "noisy_participants": 1.0,
            "seed": 0,
        },
        "model": {
            "name": "custom",
            "input_shape": [3],
            "classes": ["a", "b"],
            "normalization": {"mean": 0.0, "std": 1.0},
            "layout": NETWORK.layout.fingerprint,
            "loss": "cross-entropy",
            "layers": [{"layer": "Dense", "units": 2}],
        },
    }


def test_joining_again_gives_the_same_and_another_key_is_refused(run):
    gateway = run(participants=2)
    first, again = gateway.device("cam"), gateway.device("cam")
    assert (again.participant, again.session) == (first.participant, first.session) == (0, first.session)
    impostor = Device(gateway.port, "cam")
    assert refused(impostor.join(key="another long secret")) == (409, "name-in-use")
    assert refused(impostor.join(partition_id=1)) == (409, "other-partition")
    assert gateway.device("other").participant == 1
    assert refused(Device(gateway.port, "third").join()) == (409, "run-full")
    assert first.work() == ("evaluate", 0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"partition_id": 0}, (409, "partition-taken")),
        ({"partition_id": 2}, (422, "bad-partition-id")),
        ({"partition_id": -1}, (422, "bad-partition-id")),
        ({"partition_id": True}, (422, "bad-field")),
        ({"partition_id": "1"}, (422, "bad-field")),
        ({"version": 0}, (426, "protocol-too-old")),
        ({"version": 2, "name": None}, (426, "protocol-too-new")),
        ({"version": ...}, (422, "bad-field")),
        ({"version": "1"}, (422, "bad-field")),
        ({"layout": "0123456789abcdef"}, (422, "wrong-layout")),
        ({"layout": 7}, (422, "wrong-layout")),
        ({"name": ...}, (422, "bad-field")),
        ({"name": ""}, (422, "bad-field")),
        ({"name": "a\nb"}, (422, "bad-field")),
        ({"name": "\ud800"}, (422, "bad-field")),
        ({"name": "x" * 65}, (422, "bad-field")),
        ({"key": ...}, (422, "bad-field")),
        ({"key": "15 characters.."}, (422, "bad-field")),
        ({"key": "\ud800" * 16}, (422, "bad-field")),
    ],
)
def test_who_cannot_join_is_told_why(run, fields, expected):
    gateway = run()
    gateway.device("first")
    newcomer = Device(gateway.port, "newcomer")
    assert refused(newcomer.join(**fields)) == expected
    assert newcomer.status()["refusals"] == {expected[1]: 1}
    assert newcomer.join(layout=NETWORK.layout.fingerprint)[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b"7"])
def test_a_join_that_is_no_json_object_is_refused(run, body):
    status, _, answer = Device(run().port, "cam").call("POST", "/v1/join", body)
    assert refused((status, answer)) == (400, "bad-json")


def test_what_needs_a_session_and_what_is_not_there(run):
    gateway = run()
    gateway.device("cam")
    stranger = Device(gateway.port, "stranger", session="f" * 64)
    for method, path in (("GET", "/v1/work"), ("POST", "/v1/rounds/0/update"), ("POST", "/v1/rounds/0/evaluation")):
        status, headers, answer = stranger.call(method, path, b"" if method == "POST" else None)
        assert refused((status, answer)) == (401, "unknown-session")
        assert headers["WWW-Authenticate"] == "Bearer"
    assert stranger.call("GET", "/v1/work", Authorization="Basic abc")[0] == 401
    assert refused(stranger.call("GET", "/v2/work")[::2]) == (404, "not-found")
    assert refused(stranger.call("POST", "/v1/rounds/x/update", b"")[::2]) == (404, "not-found")
    assert refused(stranger.call("POST", "/v1/work", b"")[::2]) == (405, "wrong-method")
    assert refused(stranger.call("GET", "/v1/join")[::2]) == (405, "wrong-method")


def test_head_is_answered_as_get_without_the_body(run):
    gateway = run(participants=1)
    device = gateway.device("cam")
    for path, status in (("/healthz", 200), ("/v1/run", 200), ("/v1/model", 200), ("/v1/work", 200), ("/nothing", 404)):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer, peer.makefile("rb") as file:
            answers = []
            for method in ("HEAD", "GET"):
                start = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {device.session}\r\n\r\n"
                peer.sendall(start.encode())
                answers.append(b"".join(iter(file.readline, b"\r\n")))
            head, get = answers
            assert head == get
            assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert device.call("HEAD", "/status.json")[0] == 200
    for path in ("/v1/join", "/v1/rounds/0/update"):
        assert device.call("HEAD", path)[0] == 405


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", ""])
def test_a_wait_that_is_no_time_is_refused(run, wait):
    device = run().device("cam")
    assert refused(device.call("GET", f"/v1/work?wait={wait}")[::2]) == (422, "bad-field")


THETA = struct.pack(f"<{SIZE}d", *[1.0] * SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (update_body(float("nan"), 1), (422, "not-finite")),
        (update_body(float("inf"), 1), (422, "not-finite")),
        (update_body(1.0, 1, count=SIZE - 1), (422, "wrong-shape")),
        (update_body(1.0, 1, count=SIZE + 1), (422, "wrong-shape")),
        (safetensors({"theta": ("F64", [SIZE], THETA)}, {"layout": NETWORK.layout.fingerprint, "round": "1"}),
         (422, "wrong-shape")),
        (safetensors({}, {"layout": NETWORK.layout.fingerprint, "round": "1"}), (422, "wrong-shape")),
        (update_body(1.0, 1, layout="0" * 16), (422, "wrong-layout")),
        (update_body(1.0, 2), (409, "wrong-round")),
        (update_body(1.0, 1, samples="0"), (422, "bad-samples")),
        (update_body(1.0, 1, samples="-5"), (422, "bad-samples")),
        (update_body(1.0, 1, samples=str(10**12)), (422, "bad-samples")),
        (update_body(1.0, 1, samples="many"), (422, "bad-metadata")),
        (update_body(1.0, 1, metrics="[" * 1000), (422, "bad-metadata")),
        (update_body(1.0, 1)[:-1], (422, "bad-tensors")),
        (update_body(1.0, 1) + b"x", (422, "bad-tensors")),
        (struct.pack("<Q", 2**63) + b"{}", (422, "bad-tensors")),
        (b"", (422, "bad-tensors")),
    ],
)  # fmt: skip
def test_an_update_that_cannot_count_is_refused_and_the_right_one_is_welcome(run, body, expected):
    gateway = run()
    device, other = gateway.devices()
    status, _, answer = device.call("POST", "/v1/rounds/1/update", body)
    assert refused((status, answer)) == expected
    assert answer.get("round", 1) == 1
    assert ("round" in answer) == (status == 409)
    assert device.status()["refusals"] == {expected[1]: 1}
    assert not incoming(gateway)
    assert device.update(3.0) == other.update(5.0) == ACCEPTED
    assert device.work() == ("evaluate", 1)
    assert device.theta == [4.0] * SIZE


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("Content-Length: 100000", b"", (413, "body-too-large")),
        ("Transfer-Encoding: chunked", b"FFFFFF\r\n", (413, "body-too-large")),
        ("Transfer-Encoding: chunked", b"zz\r\n", (400, "bad-chunk")),
        ("X: y", b"", (411, "length-required")),
    ],
)
def test_an_update_that_does_not_arrive_whole_is_refused(run, head, body, expected):
    gateway = run()
    device, _ = gateway.devices()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer:
        start = f"POST /v1/rounds/1/update HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\n"
        peer.sendall(f"{start}{head}\r\n\r\n".encode() + body)
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert refused((answer.status, json.loads(answer.read()))) == expected
    assert device.status()["refusals"] == {expected[1]: 1}
    assert not incoming(gateway)
    assert device.update() == ACCEPTED


def test_an_upload_that_breaks_off_leaves_nothing(run):
    gateway = run()
    device, _ = gateway.devices()
    head = f"POST /v1/rounds/1/update HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\n"
    for sent in (b"", b"half an update"):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer:
            peer.sendall(head.encode() + b"Content-Length: 500\r\n\r\n" + sent)
            time.sleep(0.1)
    wait_for(lambda: not incoming(gateway))
    assert device.work() == ("train", 1)
    assert device.update() == ACCEPTED


def test_an_update_in_chunks_is_as_good(run):
    gateway = run(participants=1)
    (device,) = gateway.devices(1)
    body = update_body(2.0, 1)
    status, _, answer = device.call("POST", "/v1/rounds/1/update", iter([body[:7], body[7:]]))
    assert (status, answer) == ACCEPTED
    assert device.work() == ("evaluate", 1)
    assert device.theta == [2.0] * SIZE


@pytest.mark.slow
def test_sent_twice_counts_once_and_sent_late_is_told_the_round(run):
    gateway = run(rounds=3, round_deadline_s=1.0, min_fit_clients=1)
    device, late = gateway.devices()
    assert device.update(2.0) == device.update(9.0) == ACCEPTED
    assert late.work() == ("train", 1)
    wait_for(lambda: len(gateway.records) == 2)  # at the deadline, without the late one
    assert gateway.records[1]["participants"] == gateway.records[1]["failures"] == 1
    status, answer = late.update(7.0)
    assert refused((status, answer)) == (409, "wrong-round")
    assert answer["round"] == 2
    assert device.update(9.0) == ACCEPTED  # it counted: only the answer was lost
    assert device.work() == ("train", 2)
    assert device.theta == [2.0] * SIZE
    assert device.task["counted"] == "1"
    assert not incoming(gateway)


def test_an_update_that_would_be_refused_need_not_be_sent(run):
    gateway = run()
    device, _ = gateway.devices()
    head = f"HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\nContent-Length: 90\r\n"
    for number, expected in ((1, b"HTTP/1.1 100 Continue"), (2, b"HTTP/1.1 409 Conflict")):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer:
            peer.sendall(f"POST /v1/rounds/{number}/update {head}Expect: 100-continue\r\n\r\n".encode())
            assert peer.recv(21) == expected
    assert device.update() == ACCEPTED
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer:
        peer.sendall(f"POST /v1/rounds/1/update {head}Expect: 100-continue\r\n\r\n".encode())
        assert peer.recv(15) == b"HTTP/1.1 200 OK"  # it is there already


def test_a_device_that_joins_late_is_not_asked_before_the_next_stage(run):
    gateway = run(participants=3, min_available_clients=2)
    first, second = gateway.device("first"), gateway.device("second")
    wait_for(lambda: len(first.status()["cohort"]) == 2)
    late = gateway.device("late")
    assert late.work() == 204
    status, answer = late.scores()
    assert refused((status, answer)) == (409, "not-in-cohort")
    assert answer["round"] == 0
    assert refused(late.update(round_number=0)) == (409, "wrong-round")
    assert first.scores() == second.scores() == ACCEPTED
    assert late.work() == ("train", 1)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"metrics": {"samples": -1}}', b"[" * 60_000])
def test_scores_that_are_none_are_refused(run, body):
    gateway = run()
    device, _ = gateway.device("first"), gateway.device("second")
    assert device.work(wait=5) == ("evaluate", 0)
    status, _, answer = device.call("POST", "/v1/rounds/0/evaluation", body)
    assert refused((status, answer)) == (422, "bad-evaluation")
    assert device.call("POST", "/v1/rounds/0/evaluation", bytes(70_000))[0] == 413
    assert refused(device.scores(1)) == (409, "wrong-round")
    assert device.scores() == device.scores(samples=5) == ACCEPTED


BAD = [{}, {"loss": 1.0}, {"accuracy": 0.5}, {"loss": None, "accuracy": 0.5}, {"loss": 1.0, "accuracy": None}]
BAD += [{"loss": loss, "accuracy": 0.5} for loss in (-1.0, 1.1e6, "1", True, [1.0])]
BAD += [{"loss": 1.0, "accuracy": accuracy} for accuracy in (-0.1, 1.1, -1e300, "0.5", False, {})]
BAD += [{"loss": float("nan"), "accuracy": 0.5}, {"loss": 1.0, "accuracy": float("inf")}, None, 1.0, [], "scores"]


def test_a_classifiers_scores_have_a_loss_and_an_accuracy_wherever_they_stand(run):
    gateway = run(grid=[[1, 10]])
    first, second = gateway.device("first"), gateway.device("second")
    for scores in BAD:
        for where in ({"before": scores, "grid": [SCORES]}, {"after": scores, "grid": [SCORES]}, {"grid": [scores]}):
            assert refused(first.scores(**where)) == (422, "bad-evaluation"), where
    assert first.scores(before={"loss": 0, "accuracy": 1}, grid=[SCORES]) == ACCEPTED
    assert second.scores(before={"loss": 1e6, "accuracy": 0.0, "more": "ignored"}, grid=[SCORES]) == ACCEPTED
    (record,) = gateway.records
    assert record["evaluation"]["before"]["accuracy"]["mean"] == 0.5
    assert record["evaluation"]["before"]["loss"]["mean"] == 5e5


def test_a_regressions_scores_have_no_accuracy():
    metrics = {"samples": 4, "before": {"loss": 2.5}, "after": {"loss": 0.5, "accuracy": 7}, "grid": []}
    scores = admit_evaluation(json.dumps({"metrics": metrics}).encode(), EvaluationConfig(), classifies=False)
    assert scores == {"samples": 4, "before": {"loss": 2.5}, "after": {"loss": 0.5}, "grid": []}
    metrics["after"] = {"accuracy": 0.5}
    with pytest.raises(Refused, match="expected"):
        admit_evaluation(json.dumps({"metrics": metrics}).encode(), EvaluationConfig(), classifies=False)


def test_waiting_for_work_ends_at_once_when_there_is_some(run):
    gateway = run()
    waiting, last = gateway.devices()
    assert waiting.update() == ACCEPTED
    found = []
    poll = threading.Thread(target=lambda: found.append((waiting.work(wait=30), time.monotonic())))
    poll.start()
    time.sleep(0.3)
    assert not found
    delivered = time.monotonic()
    assert last.update() == ACCEPTED
    poll.join(5)
    assert found[0][0] == ("evaluate", 1)
    assert found[0][1] - delivered < 0.5


def test_waiting_ends_when_the_last_device_joins(run):
    gateway = run()
    first = gateway.device("first")
    found = []
    poll = threading.Thread(target=lambda: found.append(first.work(wait=30)))
    poll.start()
    time.sleep(0.2)
    joined = time.monotonic()
    gateway.device("second")
    poll.join(5)
    assert found == [("evaluate", 0)]
    assert time.monotonic() - joined < 0.5


def test_waiting_in_vain_ends_when_it_was_said_to(run):
    device = run().device("cam")
    start = time.monotonic()
    status, headers, body = device.call("GET", "/v1/work?wait=0.3")
    assert 0.3 <= time.monotonic() - start < 1
    assert (status, body) == (204, b"")
    assert int(headers["Retry-After"]) > 0


@pytest.mark.slow
def test_too_few_at_the_deadline_open_the_round_again_and_the_log_names_who_was_missing(run, caplog):
    gateway = run(round_deadline_s=0.7)
    kitchen, yard = gateway.device("kitchen-cam"), gateway.device("yard-cam")
    for device in (kitchen, yard):
        assert device.work(wait=5) == ("evaluate", 0)
        assert device.scores() == ACCEPTED
    assert kitchen.update(2.0) == ACCEPTED
    wait_for(lambda: "opened again (missing: yard-cam)" in caplog.text)
    assert kitchen.work() == 204  # what it delivered is kept
    assert yard.work() == ("train", 1)
    assert yard.update(4.0) == ACCEPTED
    assert kitchen.work() == ("evaluate", 1)
    assert kitchen.theta == [3.0] * SIZE


def test_a_held_out_device_that_is_away_is_waited_for_until_the_deadline_and_named(run):
    gateway = run(participants=2, held_out=1, round_deadline_s=0.4, min_fit_clients=1)
    device = gateway.device("cam")
    opened = time.monotonic()
    assert device.work(wait=5) == ("evaluate", 0)
    assert device.scores() == ACCEPTED
    status = device.status()
    assert status["missing"] == ["participant 1"]
    assert status["waiting_for"].startswith("round 0, evaluation: 1 of 2 devices, ")
    assert status["waiting_for"].endswith(" s left, missing: participant 1")
    assert device.work(wait=5) == ("train", 1)
    assert 0.3 <= time.monotonic() - opened < 0.8  # at the deadline, not at some later second
    assert gateway.records[0]["evaluation_missing"] == [1]


def test_the_status_counts(run):
    gateway = run(participants=3)
    device = gateway.device("cam")
    status = device.status()
    assert status["waiting_for"] == "round 0, evaluation: 1 of 3 training devices have joined"
    assert (status["joined"], status["participants"], status["cohort"], status["seconds_left"]) == (1, 3, [], None)
    for name in ("b", "c"):
        gateway.device(name)
    assert device.work(wait=5) == ("evaluate", 0)
    device.scores(), device.scores(9)
    status = device.status()
    assert (status["protocol"], status["round"], status["last_round"], status["stage"]) == (1, 0, 1, "evaluate")
    assert (status["cohort"], status["delivered"], status["missing"]) == (["cam", "b", "c"], 1, ["b", "c"])
    assert 50 < status["seconds_left"] <= 60
    assert [(entry["name"], entry["participant"]) for entry in status["devices"]] == [("cam", 0), ("b", 1), ("c", 2)]
    assert all(0 <= entry["heard_s"] < 5 for entry in status["devices"])
    assert status["refusals"] == {"wrong-round": 1}
    assert status["bytes_down"] > 4 * SIZE
    assert status["bytes_up"] > 0


def test_a_restart_keeps_devices_sessions_and_what_was_delivered(run):
    gateway = run()
    device, other = gateway.devices()
    assert device.update(2.0) == ACCEPTED
    (run_of(gateway.path) / "incoming" / "000001-7").write_bytes(b"half an update, and then a power cut")
    gateway.stop()
    gateway.start()
    device.port = other.port = gateway.port
    assert not incoming(gateway)
    assert device.work() == 204
    assert device.status()["devices"][1].items() >= {"name": "cam-1", "participant": 1, "heard_s": None}.items()
    session = other.session
    assert other.join()[1]["session"] == session
    assert other.work() == ("train", 1)
    assert other.update(4.0) == ACCEPTED
    assert device.work() == ("evaluate", 1)
    assert device.theta == [3.0] * SIZE


def test_a_finished_run_goes_on_answering_also_after_a_restart(run):
    gateway = run(participants=1)
    (device,) = gateway.devices(1)
    assert device.update() == device.scores(1) == ACCEPTED
    for _ in range(2):
        assert device.work(wait=30) == 410
        assert device.call("GET", "/v1/model")[0] == 200
        assert device.status()["waiting_for"] == "the run is over"
        assert device.update() == ACCEPTED  # it counted
        assert refused(device.update(round_number=2)) == (409, "wrong-round")
        gateway.stop()
        gateway.start()
        device.port = gateway.port


def test_an_endless_run_goes_on(run):
    gateway = run(participants=1, rounds=0)
    (device,) = gateway.devices(1)
    assert device.join()[1]["last_round"] is None
    for number in range(1, 8):
        assert device.work() == ("train", number)
        assert device.update(1.0, number) == ACCEPTED
    assert device.work() == ("train", 8)
    assert device.theta == [7.0] * SIZE
    kept = sorted(folder.name for folder in (run_of(gateway.path) / "rounds").iterdir())
    assert kept == ["000006", "000007"]  # the model of the last round and the one before it, and none of those before


def test_others_are_answered_while_an_upload_is_flushed_to_a_slow_disk(run, monkeypatch):
    gateway = run()
    device, other = gateway.devices()
    flushing, flushed = threading.Event(), threading.Event()

    def slow_fsync(descriptor):
        flushing.set()
        assert flushed.wait(10)

    answers = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", slow_fsync)
        upload = threading.Thread(target=lambda: answers.append(device.update()))
        upload.start()
        assert flushing.wait(5)
        start = time.monotonic()
        assert other.call("GET", "/healthz")[2] == {"ok": True}
        assert other.work() == ("train", 1)
        assert other.status()["delivered"] == 0
        assert time.monotonic() - start < 1
        assert not answers  # accepted means on disk
        flushed.set()
        upload.join(5)
    assert answers == [ACCEPTED]


def test_health_and_status_are_answered_while_the_coordinator_is_busy(run, monkeypatch):
    gateway = run()
    device, _ = gateway.devices()
    asked, done = threading.Event(), threading.Event()
    work = Coordinator.work

    def slow_work(*arguments):
        asked.set()
        assert done.wait(10)
        return work(*arguments)

    monkeypatch.setattr(Coordinator, "work", slow_work)
    found = []
    poll = threading.Thread(target=lambda: found.append(device.work()))
    poll.start()
    assert asked.wait(5)
    start = time.monotonic()
    assert device.call("GET", "/healthz")[2] == {"ok": True}
    assert device.status()["round"] == 1
    assert time.monotonic() - start < 1
    done.set()
    poll.join(5)
    assert found == [("train", 1)]


def test_a_slow_reader_gets_the_whole_of_a_model_that_newer_rounds_have_removed(run):
    large = Model([Dense(2)], (500_000,))
    gateway = run(participants=1, network=large, rounds=2)
    device = gateway.device("cam")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        reader.connect(("127.0.0.1", gateway.port))
        reader.settimeout(10)
        reader.sendall(f"GET /v1/work HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {device.session}\r\n\r\n".encode())
        assert reader.recv(15) == b"HTTP/1.1 200 OK"
        assert device.scores() == ACCEPTED
        for number in (1, 2):  # the model before the last one is kept, in case that has to be repeated
            body = update_body(1.0, number, count=large.layout.size, layout=large.layout.fingerprint)
            assert device.call("POST", f"/v1/rounds/{number}/update", body)[0] == 200
        assert not (run_of(gateway.path) / "rounds" / "000000").exists()
        data = b""
        while len(data) < 4 * large.layout.size or not data.endswith(bytes(4 * large.layout.size)):
            piece = reader.recv(1 << 20)
            assert piece
            data += piece


@contextlib.contextmanager
def small_disk(folder):
    """Mount a file system of 1 MB, which takes root; or else skip, and say so."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    ) if shutil.which("mount") else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("NOT TESTED: a full disk, as mounting a small one takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_answered_and_the_run_goes_on_when_there_is_room(run, tmp_path):
    with small_disk(tmp_path / "card"):
        network = Model([Dense(2)], (20_000,))  # 160 kB: the start, two updates and the next model fit into 1 MB
        gateway = run(path=tmp_path / "card" / "state", network=network)
        try:
            _fill_and_free(gateway, tmp_path / "card" / "ballast", network.layout)
        finally:
            gateway.stop()


def _fill_and_free(gateway, ballast, layout):
    def deliver(device, value):
        body = update_body(value, 1, count=layout.size, layout=layout.fingerprint)
        return device.call("POST", "/v1/rounds/1/update", body)

    def fill():
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    device, other = gateway.devices()
    fill()
    status, headers, answer = deliver(device, 2.0)
    assert refused((status, answer)) == (507, "storage")
    assert int(headers["Retry-After"]) > 0
    assert str(gateway.path) not in answer["detail"]
    assert device.call("GET", "/v1/work")[0] == 200
    assert device.call("GET", "/healthz")[0] == 200
    ballast.unlink()
    assert deliver(device, 2.0)[0] == 200
    ballast.write_bytes(bytes(500_000))
    # Room for the update and not for the model that it leads to: accepted or not, the answer says which.
    while True:
        status, _, answer = deliver(other, 4.0)
        if status == 200:
            break
        assert refused((status, answer)) == (507, "storage")
        size = ballast.stat().st_size
        os.truncate(ballast, max(0, size - 50_000))
    ballast.unlink()
    wait_for(lambda: device.status()["stage"] == "evaluate")
    assert struct.unpack("<f", device.call("GET", "/v1/model")[2][-4:]) == (3.0,)


@pytest.mark.slow
def test_a_disk_that_refuses_the_commit_is_tried_again_without_any_device(run, monkeypatch, caplog):
    gateway = run()
    device, other = gateway.devices()
    assert device.update(2.0) == ACCEPTED
    fsync = os.fsync

    tries = []

    def full_at_the_model(descriptor):
        if "model" in os.readlink(f"/proc/self/fd/{descriptor}"):
            tries.append(descriptor)
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_model)
        assert refused(other.update(4.0)) == (507, "storage")
        assert other.status()["stage"] == "train"
        assert "No space left on device" in caplog.text
        wait_for(lambda: len(tries) >= 3)  # once for the update, and then about once a second
    wait_for(lambda: device.status()["stage"] == "evaluate", 3)
    assert device.work() == ("evaluate", 1)
    assert device.theta == [3.0] * SIZE
    assert other.update(4.0) == ACCEPTED


@pytest.mark.slow
def test_killed_in_a_round_and_started_again_it_goes_on(tmp_path):
    with server(tmp_path) as (process, port):
        devices = [Device(port, name) for name in "ab"]
        for device in devices:
            assert device.join()[0] == 200
        for device in devices:
            assert device.call("GET", "/v1/work?wait=5")[0] == 200
            assert device.scores() == ACCEPTED
        size, layout = 3 * 200 + 200 + 200 * 200 + 200 + 200 * 2 + 2, devices[0].join()[1]["model"]["layout"]
        body = update_body(1.0, 1, count=size, layout=layout)
        assert devices[0].call("POST", "/v1/rounds/1/update", body)[0] == 200
        process.kill()
    with server(tmp_path) as (process, port):
        for device in devices:
            device.port = port
        status = devices[0].status()
        assert (status["round"], status["delivered"], status["missing"]) == (1, 1, ["b"])
        assert devices[1].call("POST", "/v1/rounds/1/update", body)[0] == 200
        assert devices[1].status()["round"] == 2
        waits = threading.Thread(target=lambda: devices[0].call("GET", "/v1/work?wait=60"))
        assert devices[0].call("POST", "/v1/rounds/2/update", update_body(1.0, 2, count=size, layout=layout))[0] == 200
        waits.start()
        time.sleep(0.3)
        stopped = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - stopped < 3  # a device that waits for work does not hold it up
        waits.join()
        log = (tmp_path / "log").read_text()
        assert "a joined as participant 0 (1 of 2)" in log
        assert "round 1/2" in log
        assert "Traceback" not in log


@pytest.mark.slow
def test_what_the_command_line_refuses(tmp_path):
    with server(tmp_path) as (process, port):
        other = command_line("server", "--port", port, "--state", "other", cwd=tmp_path)
        assert (other.returncode, "choose another port" in other.stderr) == (2, True), other.stderr
        same = command_line("server", "--config", "run.toml", "--port", 0, cwd=tmp_path)
        assert (same.returncode, "another gateway works in edgemeta-state" in same.stderr) == (2, True), same.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    another = command_line("server", "--config", "run.toml", "--set", "phases.0.rounds=3", "--port", 0, cwd=tmp_path)
    assert (another.returncode, "phases.0.rounds: 2 and 3" in another.stderr) == (2, True), another.stderr
    beyond = command_line("server", "--config", "run.toml", "--host", "0.0.0.0", cwd=tmp_path)
    assert (beyond.returncode, "--insecure" in beyond.stderr) == (2, True), beyond.stderr
    assert all("Traceback" not in done.stderr for done in (other, same, another, beyond))


def test_from_another_machine_the_status_is_closed_and_the_model_takes_a_session(tmp_path):
    address = own_address()
    if address is None:
        pytest.skip("NOT TESTED: this machine has no address but loopback")
    with server(tmp_path, "--host", "0.0.0.0", "--insecure") as (_, port):

        def get(path, **headers):
            peer = http.client.HTTPConnection(address, port, timeout=10)
            peer.request("GET", path, headers=headers)
            answer = peer.getresponse()
            body = answer.read()
            peer.close()
            return answer.status, json.loads(body) if body[:1] == b"{" else None

        local = Device(port, "cam")
        assert local.join()[0] == 200
        assert get("/healthz") == (200, {"ok": True})
        assert refused(get("/status.json")) == (403, "operator-only")
        assert refused(get("/v1/model")) == (401, "unknown-session")
        assert get("/v1/model", Authorization=f"Bearer {local.session}")[0] == 200
        assert local.status()["refusals"] == {"operator-only": 1, "unknown-session": 1}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_addresses_of_this_machine(address):
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0", "", "gateway"])
def test_addresses_of_others(address):
    assert not is_loopback(address)


def test_a_message_that_comes_all_the_time_is_due_less_and_less_often():
    seldom = Seldom(after_s=5.0)
    assert [s for s in range(1000) if seldom.due("a", float(s))] == [5, 10, 20, 40, 80, 160, 320, 620, 920]
    assert not seldom.due("b", 1000.0)
    assert Seldom().due("c", 7.0)
