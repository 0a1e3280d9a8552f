"""Gateways that an earlier commit left: they open, know their devices, and go on to the right bits, message by message.

The devices are raw peers with updates made by hand, so the right bits are the same on every processor.
"""

import json
import re
import resource
import shutil
import socket
import threading
import tomllib

import numpy as np
import pytest
from gateways import SCORES, Device, key_of, update_body
from kept import asked, fold, history_in, message, parts, run_in, served, tensors_in, unpack, vector_in
from runs import command_line

from edgemeta.gateway.tokens import DEVICES_FILE, Tokens

pytestmark = pytest.mark.slow

ACCEPTED = (200, {"accepted": True})


def member(port, house, name):
    """Return a raw peer with a kept device's key, once it has its place and its session again."""
    said = json.loads((house / name / "device.json").read_text())
    peer = Device(port, name)
    assert peer.join(key=said["key"])[0] == 200
    assert (peer.participant, peer.session) == (said["joined"]["participant"], said["session"])
    return peer


def kept_model(house):
    return vector_in((house / "gateway" / "model.safetensors").read_bytes())


def model_of(peer):
    status, _, body = peer.call("GET", "/v1/model")
    assert status == 200
    return vector_in(body)


def shape(theta):
    """What `update_body` needs for an update of the kept gateways' network."""
    return {"layout": "6a59365701b4a207", "count": theta.size}


def assert_refused_as_before(port, folder, name):
    requests = sorted((unpack("refusals", folder) / name).glob("*.request"))
    assert requests
    for path in requests:
        if path.stem not in ("storage", "stopping"):  # which take more than a request
            assert_answered_as_before(asked(port, path.read_bytes()), path)


def assert_answered_as_before(answer, request):
    """The status, the headers, the reason and whatever else a program reads; the detail is for people."""
    was_first, was_headers, was_body = parts(request.with_suffix(".answer").read_bytes())
    first, headers, body = parts(answer)
    assert first.split()[:2] == was_first.split()[:2], request.stem  # the words for a status are Python's
    assert headers | {"Content-Length": ""} == was_headers | {"Content-Length": ""}, request.stem
    now, was = json.loads(body), json.loads(was_body)
    assert now.pop("detail"), request.stem
    del was["detail"]
    assert was.items() <= now.items(), request.stem


def test_a_round_that_was_half_collected(tmp_path):
    house = unpack("household-training", tmp_path / "house")
    start, kept = kept_model(house), history_in(house)
    stored = [next((house / "gateway").rglob(f"update-00000{k}.*")).read_bytes() for k in (0, 2)]
    again = unpack("household-training", tmp_path / "again")  # a device that is refused is not waited for:
    text = (run_in(again) / "run.toml").read_text().replace("min_fit_clients = 2", "min_fit_clients = 3")
    (run_in(again) / "run.toml").write_text(text)  # so this round stays open for all of them
    with served(again / "gateway") as (_, port):
        assert_refused_as_before(port, tmp_path / "refusals", "household-training")
    with served(house / "gateway") as (_, port):
        boards = [member(port, house, f"board-{k}") for k in range(4)]
        status = boards[0].status()
        assert (status["stage"], status["round"], status["delivered"]) == ("train", 2, 2)
        assert status["missing"] == ["board-1"]
        assert [board.work() for board in (boards[0], boards[2], boards[3])] == [204, 204, 204]
        assert boards[1].work() == ("train", 2)
        assert boards[1].task["counted"] == "1"
        assert np.float32(boards[1].theta).tobytes() == start.tobytes()
        assert boards[1].update(0.001, 2, **shape(start)) == ACCEPTED

        messages = [stored[0], update_body(0.001, 2, **shape(start)), stored[1]]
        said = [tensors_in(body)[0] for body in messages]
        samples = [int(metadata["samples"]) for metadata in said]
        theta = fold(start, [(vector_in(body), count) for body, count in zip(messages, samples, strict=True)])
        assert model_of(boards[3]).tobytes() == theta.tobytes()
        for board in boards:
            assert board.work() == ("evaluate", 2)
            assert np.float32(board.theta).tobytes() == theta.tobytes()
            assert board.scores(2, grid=[SCORES]) == ACCEPTED
        assert [board.work() for board in boards] == [("train", 3)] * 3 + [204]
        assert {board.task["counted"] for board in boards[:3]} == {"2"}

    records = history_in(house)
    assert records[:-1] == kept
    last, metrics = records[-1], [json.loads(metadata["metrics"]) for metadata in said]
    scores = {"metrics": {"samples": 4, "before": SCORES, "after": SCORES, "grid": [SCORES]}}
    assert (last["round"], last["participants"], last["failures"]) == (2, 3, 0)
    assert last["bytes_up"] == sum(map(len, messages)) + 4 * len(json.dumps(scores))
    assert last["gradient_evaluations"] == sum(one["gradient_evaluations"] for one in metrics) == 8 + 2 + 8
    assert last["train_loss"] == pytest.approx(np.average([one["loss"] for one in metrics], weights=samples))


def test_what_a_full_disk_and_a_stop_are_answered_by(tmp_path):
    house, refusals = unpack("household-training", tmp_path), unpack("refusals", tmp_path / "r") / "household-training"
    with served(house / "gateway") as (process, port):
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, most))
        storage, stopping = refusals / "storage.request", refusals / "stopping.request"
        assert_answered_as_before(asked(port, storage.read_bytes()), storage)
        threading.Timer(0.2, process.terminate).start()
        assert_answered_as_before(asked(port, stopping.read_bytes()), stopping)


def test_an_evaluation_that_was_half_collected(tmp_path):
    house = unpack("household-evaluation", tmp_path)
    theta, kept = kept_model(house), history_in(house)
    (first,) = (house / "gateway").rglob("evaluation-000000.json")
    scores = json.loads(first.read_text())["metrics"]
    with served(house / "gateway") as (_, port):
        assert_refused_as_before(port, tmp_path / "refusals", "household-evaluation")
        boards = [member(port, house, f"board-{k}") for k in range(4)]
        assert boards[0].work() == 204
        for board in boards[1:]:
            assert board.work() == ("evaluate", 2)
            assert np.float32(board.theta).tobytes() == theta.tobytes()
            assert board.scores(2, grid=[SCORES]) == ACCEPTED
        assert boards[0].work() == ("train", 3)
    records = history_in(house)
    assert records[:-1] == kept
    last = records[-1]
    assert last["participants"] == 3  # that trained, before the power went
    parted = {"before": last["evaluation"]["before"], "after": last["evaluation"]["after"]}
    parted["grid"] = last["evaluation"]["grid"][0]
    for when, was in (("before", scores["before"]), ("after", scores["after"]), ("grid", scores["grid"][0])):
        for metric in ("loss", "accuracy"):
            mean = np.average([was[metric], SCORES[metric], SCORES[metric]], weights=[scores["samples"], 4, 4])
            assert parted[when][metric]["mean"] == pytest.approx(mean)
    assert last["evaluation_new"]["after"]["accuracy"]["mean"] == SCORES["accuracy"]
    assert "evaluation_missing" not in last


def test_a_run_that_was_over(tmp_path):
    house = unpack("household-finished", tmp_path)
    model, kept = (house / "gateway" / "model.safetensors").read_bytes(), history_in(house)
    with served(house / "gateway") as (_, port):
        assert_refused_as_before(port, tmp_path / "refusals", "household-finished")
        board = member(port, house, "board-3")
        assert board.call("GET", "/v1/model")[2] == model
        assert board.status()["stage"] == "over"
    assert history_in(house) == kept


def test_an_upload_that_was_cut_off_counts_for_nothing(tmp_path):
    """Ant's update of 1/2 is in, from 10 samples; cat's was cut off, and dog's had not begun."""
    house = unpack("gateway-cut-upload", tmp_path)
    start = kept_model(house)
    (cut,) = (house / "gateway" / "incoming").iterdir()
    assert cut.stat().st_size >= 65536
    with served(house / "gateway") as (_, port):
        assert not list(house.rglob(cut.name))
        ant, bee, cat, dog = (Device(port, name) for name in ("ant", "bee", "cat", "dog"))
        assert [peer.join()[1]["participant"] for peer in (ant, bee, cat, dog)] == [0, 1, 2, 3]
        status = ant.status()
        assert (status["cohort"], status["missing"]) == (["ant", "cat", "dog"], ["cat", "dog"])
        assert dog.update(-(2.0**60), 1, **shape(start)) == ACCEPTED
        assert model_of(dog).tobytes() == start.tobytes()
        assert cat.update(2.0**60, 1, **shape(start)) == ACCEPTED
        assert ant.status()["round"] == 2
        # In the order of participants and in double precision, 5 + 10 * 2^60 is 10 * 2^60: nothing of ant's is left.
        assert model_of(dog).tobytes() == start.tobytes()


def test_a_round_that_was_opened_again_without_those_who_were_away(tmp_path):
    """Of round 2, ant's update of 1/4 is in, from 10 samples; cat and dog were away, so that bee was asked instead."""
    house = unpack("gateway-opened-again", tmp_path)
    start, kept = kept_model(house), history_in(house)
    assert start.tolist() == (np.arange(start.size) % 8 / 8 + (0.5 + 1 + 1.5) / 3).tolist()
    with served(house / "gateway") as (_, port):
        ant, bee, cat = (Device(port, name) for name in ("ant", "bee", "cat"))
        assert [peer.join()[1]["participant"] for peer in (ant, bee)] == [0, 1]
        status = ant.status()
        assert (status["cohort"], status["missing"]) == (["ant", "bee"], ["bee"])
        assert bee.work() == ("train", 2)
        assert bee.task["counted"] == "0"
        assert cat.join()[1]["participant"] == 2  # and so it is heard again, and dog is not
        assert bee.update(0.75, 2, samples="30", **shape(start)) == ACCEPTED
        theta = start + np.float32((10 * 0.25 + 30 * 0.75) / 40)

        drawn = np.random.default_rng([1, 4, 0, 3, 0]).permutation([0, 1, 2])[: round(0.75 * 3)]
        assert sorted(drawn) == [1, 2]
        assert ant.status()["cohort"] == ["bee", "cat"]
        assert bee.work() == cat.work() == ("train", 3)
        assert (bee.task["counted"], cat.task["counted"]) == ("2", "1")
        assert np.float32(cat.theta).tobytes() == theta.tobytes()
        for peer in (bee, cat):
            assert peer.update(0.0, 3, **shape(start)) == ACCEPTED
        assert ant.status()["cohort"] == ["ant", "bee", "cat"]
        assert [peer.scores(3) for peer in (ant, bee, cat)] == [ACCEPTED] * 3
        assert ant.work() == 410
        assert model_of(ant).tobytes() == theta.tobytes()
    records = history_in(house)
    assert records[: len(kept)] == kept
    assert [(record["round"], record["participants"]) for record in records] == [(0, 0), (1, 3), (2, 2), (3, 2)]
    assert "evaluation_missing" not in records[3]


def test_devices_and_their_tokens(tmp_path):
    """Without the certificates, as those have their time."""
    house = unpack("gateway-tokens", tmp_path)
    shutil.rmtree(house / "gateway" / "tls")
    tokens = {path.stem: tomllib.loads(path.read_text())["token"] for path in house.glob("*.join")}
    listed = command_line("devices", "--state", house / "gateway").stdout
    standings = [re.split(" {2,}", line) for line in listed.splitlines()]
    assert [(name, " ".join(how)) for name, _, *how in standings] == [
        ("attic", "not joined yet 0 runs"),
        ("kitchen", "participant 0 1 run"),
        ("plain", "not joined yet 0 runs"),
        ("porch", "participant 1 1 run a newer token is not used yet"),
        ("shed", "participant 2 1 run revoked"),
    ]

    def joins(name, token):
        peer = Device(port, name)
        key = json.loads((house / name / "device.json").read_text())["key"] if (house / name).exists() else key_of(name)
        peer.session = tokens[token]
        status, answer = peer.join(key=key)
        return (status, answer["participant"], answer["session"]) if status == 200 else (status, answer["error"])

    def session(name):
        return json.loads((house / name / "device.json").read_text())["session"]

    with served(house / "gateway") as (_, port):
        assert_refused_as_before(port, tmp_path / "refusals", "gateway-tokens")
        assert Device(port, "kitchen", session("kitchen")).work() == 204  # its scores are in
        porch = Device(port, "porch", session("porch"))
        assert porch.work() == ("evaluate", 0)
        assert Device(port, "shed", session("shed")).work() == 401
        assert joins("attic", "attic")[:2] == (200, 3)
        assert joins("porch", "porch-first") == joins("porch", "porch") == (200, 1, session("porch"))
        assert joins("porch", "porch-first") == (401, "revoked")
        assert porch.scores(0, grid=[SCORES]) == ACCEPTED
    operator = (house / "operator-token").read_text().strip()
    register = Tokens(house / "gateway" / DEVICES_FILE)
    assert register.is_operators(operator)
    assert not register.is_operators(tokens["kitchen"])


def test_a_whole_run_is_the_same_bytes(tmp_path):
    """The requests of a kept device, byte by byte, have the same answers; all but the seconds that are left."""
    kept = unpack("wire", tmp_path)
    requests = sorted((kept / "session").glob("*.request"))
    assert len(requests) == 9
    with served(kept / "gateway") as (_, port):
        for path in sorted((kept / "answers").glob("*.request")):
            assert_said_as_before(asked(port, path.read_bytes()), path.with_suffix(".answer").read_bytes())
        with socket.create_connection(("127.0.0.1", port), 20) as peer, peer.makefile("rb") as file:
            for path in requests:
                peer.sendall(path.read_bytes())
                now, was = message(file), path.with_suffix(".answer").read_bytes()
                left = re.compile(rb"(?<=\r\nX-Edgemeta-Seconds-Left: )\d+(?=\r\n)")
                assert left.sub(b"", now) == left.sub(b"", was), path.stem


def assert_said_as_before(answer, before):
    """What a gateway says of itself: fields may be added, none is gone or has another type."""
    (first, headers, now), (was_first, was_headers, was) = parts(answer), parts(before)
    assert (first, headers.keys() - {"ETag", "Cache-Control"}) == (was_first, was_headers.keys())
    now, was = json.loads(now), json.loads(was)
    assert was.keys() <= now.keys()
    for key, value in was.items():
        assert type(now[key]) is type(value), key
        if isinstance(value, dict):
            assert value.items() <= now[key].items(), key
        elif key == "devices":
            for one, before in zip(now[key], value, strict=True):
                assert before.items() <= one.items()
        elif key not in ("time", "version", "waiting_for", "seconds_left"):
            assert now[key] == value, key
