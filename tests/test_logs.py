"""A log's lines: what each form says of one event, from which level on, and how many there are of it."""

import json
import logging
import shlex
import subprocess
import sys

import pytest
from kept import asked
from processes import server

from edgemeta.logs import ForPeople, ForPrograms, json_line, logfmt

CAM = "cam\x1b[2J\u202e\n\"a = b\""  # fmt: skip


def record(level: int, message: str, *args: object) -> logging.LogRecord:
    made = logging.LogRecord("edgemeta", level, "", 0, message, args, None)
    made.created = 1764115200.25  # 2025-11-26, at midnight in Greenwich
    return made


def test_one_event_in_each_form():
    joined = record(logging.INFO, "%(device)s joined", {"device": CAM, "participant": 3, "rate": 0.5})
    stamp = "2025-11-26T00:00:00.250Z"
    assert ForPeople().format(joined) == 'cam\\x1b[2J\\u202e\\n"a = b" joined'
    assert ForPrograms(logfmt).format(joined) == (
        f'time={stamp} level=info event="cam\\u001b[2J\\u202e\\n\\"a = b\\" joined" '
        'device="cam\\u001b[2J\\u202e\\n\\"a = b\\"" participant=3 rate=0.5'
    )
    line = ForPrograms(json_line).format(joined)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"time": stamp, "level": "info", "event": f"{CAM} joined"} | {
        "device": CAM,
        "participant": 3,
        "rate": 0.5,
    }


def test_warnings_say_so_and_values_without_names_are_in_the_sentence():
    lost = record(logging.WARNING, "lost: %s", "x")
    assert ForPeople().format(lost) == "WARNING: lost: x"
    assert ForPrograms(logfmt).format(lost).endswith(' level=warning event="lost: x"')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[("ü/1", '"ü/1"'), ("plain-1.5/[u]", "plain-1.5/[u]"), ("", '""'), ("a b", '"a b"'), ("a=b", '"a=b"')],
        *[('"', '"\\""'), ("\\", '"\\\\"'), ("\x7f\x9b", '"\\x7f\\x9b"'), (None, "None"), (7, "7")],
    ],
)
def test_a_value_is_quoted_where_it_has_to_be(value, text):
    assert logfmt({"key": value}) == f"key={text}"


def test_numbers_that_json_does_not_have_are_text():
    assert json.loads(json_line({"a": float("nan"), "b": float("-inf"), "c": 1.0})) == {"a": "nan", "b": "-inf", "c": 1}


def test_an_exception_is_one_value_of_one_line():
    try:
        raise RuntimeError("1\n2")
    except RuntimeError:
        failed = logging.LogRecord("asyncio", logging.ERROR, "", 0, "never retrieved", (), sys.exc_info())
    said = dict(pair.split("=", 1) for pair in shlex.split(ForPrograms(logfmt).format(failed)))
    assert (said["event"], said["exception"]) == ("never retrieved", r"RuntimeError('1\n2')")


@pytest.mark.slow
@pytest.mark.parametrize(("level", "polls"), [("info", 0), ("debug", 30)])
def test_a_poll_is_a_line_for_who_looks_for_errors_alone(tmp_path, level, polls):
    with server(tmp_path, "--log-json", "--log-level", level) as (_, port):
        for path in ("/v1/run", "/status.json"):
            for _ in range(15):
                asked(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[0]["event"] == "edgemeta-state is the site of a gateway from now on"
    answered = [line for line in lines if "status" in line]
    assert [line["path"] for line in answered] == (["/v1/run"] * 15 + ["/status.json"] * 15)[:polls]
    assert {line["level"] for line in answered} == ({"debug"} if polls else set())


@pytest.mark.slow
def test_a_device_logs_what_it_is_asked_for():
    def client(*options: str) -> list[str]:
        command = [sys.executable, "-m", "edgemeta", "client", "--server", "http://127.0.0.1:9", "--for", "0.5"]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False).stderr.splitlines()

    (gave_up,) = client("--log-level", "error")
    assert gave_up.startswith("Error: gave up after 0.5 s")
    *lines, last = client("--log-json")
    assert last == gave_up
    asking, away = map(json.loads, lines)
    assert asking["event"].endswith(": asking for work; state in edgemeta-state, data: None")
    assert (asking["state"], asking["level"]) == ("edgemeta-state", "info")
    assert (away["kind"], away["event"].startswith("gateway away (http://127.0.0.1:9): ")) == ("away", True)
