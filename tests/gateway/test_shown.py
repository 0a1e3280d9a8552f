"""What a peer sends is text on one line in every log and answer, and no answer tells a path of the disk."""

import json
import logging
import re

from gateways import ACCEPTED, Device, update_body
from kept import asked
from processes import server

from edgemeta.fed.refusal import Reason, Refused
from edgemeta.http.head import Fault, ProtocolError
from edgemeta.logs import Failures, ForPeople
from edgemeta.names import shown

SIZE, LAYOUT = 3 * 200 + 200 + 200 * 200 + 200 + 200 * 2 + 2, "c255503761aabd60"  # `mlp` of the tests' run
LINE = b"\x1b[2J\n2026-11-25 00:00:00,000 INFO: all is well\r\n\x9b31m"
STAMP = re.compile(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(info|warning|error) event=")
TEXT = json.dumps(LINE.decode("latin-1") + "\u202e\u2028" + "x" * 9000)


def post(path, body, session=""):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {session}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def update(**changes):
    return update_body(1.0, 1, **{"count": SIZE, "layout": LAYOUT, **changes})


def requests(session):
    """Raw requests with what could be quoted somewhere, none of which is right."""
    key = '"version": 1, "key": "0123456789abcdef"'
    for fields in (f'"name": {TEXT}, {key}', f'"name": "n", {key}, "layout": {TEXT}', f'"name": "n", "version": {TEXT}',
                   f'"name": "n", {key}, "partition_id": {TEXT}', f'"name": "n", {key}, "partition_id": {"9" * 4000}',
                   f'"name": "n", "version": {"9" * 4000}', TEXT):  # fmt: skip
        yield post("/v1/join", f"{{{fields}}}".encode())
    said = json.loads(TEXT)
    yield from (post("/v1/rounds/1/update", update(**{key: said}), session) for key in ("layout", "round", "samples"))
    for body in (
        update(metrics=json.dumps({"loss": said, "gradient_evaluations": 1})),
        update(metrics=TEXT),
        update()[:-1],
        update().replace(b'"theta"', b'"\\u001b\\n"'),
        update().replace(b'"F32"', b'"\x1b\n2"'),
        update().replace(b'"F32"', b'"\\n\\u009b"'),
        LINE,
    ):
        yield post("/v1/rounds/1/update", body, session)
    for metrics in (said, {"samples": said}, {"samples": 1, "before": said}, {"samples": 1, "before": {"loss": said}}):
        yield post("/v1/rounds/0/evaluation", json.dumps({"metrics": metrics}).encode(), session)
    escaped = "".join(f"%{byte:02x}" for byte in LINE).encode()
    start = b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + session.encode() + b"\r\n"
    yield b"GET /v1/work?wait=%1b%0a%5b31m" + start + b"\r\n"
    yield b"GET /v1/work?wait=%9b" + start + b"\r\n"
    yield b"GET /" + escaped + start + b"\r\n"
    yield b"GET /" + LINE + start + b"\r\n"
    yield LINE + b" /" + start + b"\r\n"
    yield b"GET / HTTP/" + LINE + b"\r\n\r\n"
    for name in (b"Host", b"Origin", b"Expect", b"Content-Length", b"Transfer-Encoding", b"Authorization", b"x\x1b"):
        for value in (b"\x9b\xff\x85" + b"x" * 999, LINE):
            yield b"GET /nothing" + start + name + b": " + value + b"\r\n\r\n"
    yield bytes(range(1, 32)) + b"\x7f\x80\xff\r\n\r\n"


def test_whatever_bytes_a_peer_sends_the_log_and_the_answers_are_plain_lines(tmp_path):
    with server(tmp_path) as (_, port):
        devices = [Device(port, name) for name in ("cam", "mic")]
        assert [device.join()[0] for device in devices] == [200, 200]
        wrong = list(requests(devices[0].session))
        evaluations = [one for one in wrong if b"/evaluation " in one[:40]]
        others = [one for one in wrong if one not in evaluations]
        for one in evaluations:
            assert_plain_answer(asked(port, one), tmp_path)
        assert [device.scores() for device in devices] == [ACCEPTED, ACCEPTED]
        for one in others:
            assert_plain_answer(asked(port, one), tmp_path)
        assert devices[1].call("POST", "/v1/rounds/1/update", update())[0] == 200  # the other one is asked no more
        assert devices[1].status()["held"] == ["cam"]
    log = (tmp_path / "log").read_bytes().decode()
    assert len(log) < 12_000
    for line in log.splitlines(keepends=True):
        assert STAMP.match(line), line
        assert line.removesuffix("\n").isprintable(), line
    assert "INFO: all is well" in log  # where it belongs: in the middle of a line


def assert_plain_answer(answer, folder):
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert said["error"] in {*Reason, *Fault} - {Fault.INTERNAL_ERROR}, said
    assert said["detail"].isprintable(), said
    assert len(said["detail"]) <= 400
    assert not re.search(rf"{folder}|edgemeta-state|\.safetensors|\.json|incoming", said["detail"]), said


def test_one_function_makes_all_of_it_plain():
    text = "a\x1b\n\x85\u202e" + "x" * 1000
    plain = "a\\x1b\\n\\x85\\u202e" + "x" * 1000
    assert shown(text) == plain
    assert shown(text, 400) == str(Refused(Reason.BAD_FIELD, text)) == ProtocolError(Fault.BAD_HOST, text).detail
    assert shown(text, 400) == plain[:397] + "..."
    assert shown("\x1b" * 100, 400) == "\\x1b" * 100
    assert shown("\x1b" * 101, 400) == "\\x1b" * 99 + "\\" + "..."
    assert shown("x" * 400, 400) == "x" * 400


def test_a_line_of_the_log_ends_where_it_is_meant_to():
    record = logging.LogRecord("edgemeta", logging.WARNING, "", 0, "of %s", ("a\r\n\x1b[2J\u2028b",), None)
    assert ForPeople().format(record) == "WARNING: of a\\r\\n\\x1b[2J\\u2028b"


def test_an_error_is_one_line_with_its_place(caplog):
    failures = Failures(lambda: 0.0)
    for _ in range(3):
        with failures.survived("thing"):
            raise RuntimeError("1\n\x1b[31m" + "9" * 500)
    failures.note("task", RuntimeError("never raised"))
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("a thing failed, and the run goes on: RuntimeError: 1\\n\\x1b[31m999")
    assert re.search(r"9\.\.\.; at test_shown\.py:\d+ test_an_error_is_one_line_with_its_place, from logs.py", first)
    assert first.isprintable()
    assert second == "a task failed, and the run goes on: RuntimeError: never raised; at no place"
    assert failures.counts == {"thing": 3, "task": 1}
