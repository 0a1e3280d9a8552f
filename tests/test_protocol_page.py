"""The protocol page: its session is run, and its lists are held against the code."""

import re
import shutil
import subprocess
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from gateways import Gateway, no_gateway_left
from processes import server

import edgemeta
from edgemeta.cli import commands
from edgemeta.config import DataConfig, EvaluationConfig, PhaseConfig
from edgemeta.fed.messages import MAX_SAMPLES
from edgemeta.fed.refusal import Reason
from edgemeta.fed.upload import HEAD_BYTES, UPLOADS
from edgemeta.gateway.routes import MAX_EVALUATION_BYTES, MAX_JOIN_BYTES, MAX_WAIT_S, ROUTES, STATUS
from edgemeta.http.budget import FOR_THE_RUN, RESERVED
from edgemeta.http.exchange import BLOCK
from edgemeta.http.head import Fault
from edgemeta.http.http1 import Limits
from edgemeta.logs import FIRST_S, LONGEST_S
from edgemeta.meta import LOSS_CEILING
from edgemeta.names import MOST_SAID

ROOT = Path(edgemeta.__file__).parent
PAGE = (ROOT.parent / "docs" / "protocol.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"\b[0-9a-f]{64}\b")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="NOT TESTED: the page's session, as there is no curl")
def test_the_session_on_the_page_runs_and_prints_what_the_page_says(tmp_path):
    (config,) = [text for kind, text in BLOCKS if kind == "toml"]
    (program,) = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "update.py").write_text(program)
    steps = []  # (commands, what they print)
    for (kind, text), (following, printed) in pairwise(BLOCKS):
        if kind == "sh":
            assert following == "text", f"the page does not show what this prints: {text}"
            steps.append((text, printed))
    assert len(steps) >= 8
    with server(tmp_path, config=config) as (_, port):
        script = "set -e\n" + "echo ==\n".join(text for text, _ in steps)
        script = script.replace("127.0.0.1:8742", f"127.0.0.1:{port}")
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for (text, printed), got in zip(steps, re.split(r"^==\n", done.stdout, flags=re.MULTILINE), strict=True):
        assert SESSION.sub("SESSION", got) == SESSION.sub("SESSION", printed), text


def test_every_reason_is_on_the_page_with_its_status():
    said = {reason: int(status) for reason, status in re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE)}
    assert said == {fault: fault.status for fault in Fault} | {reason: STATUS.get(reason, 422) for reason in Reason}


def test_no_reason_is_only_a_word():
    """All that the sources refuse is in the two lists, and nothing in them is left over."""
    used = set()
    for room in ("fed", "gateway", "http"):
        for path in (ROOT / room).glob("*.py"):
            used |= set(re.findall(r"\b(?:Reason|Fault)\.([A-Z_]+)", path.read_text()))
    assert used == {member.name for member in (*Reason, *Fault)}


def test_every_request_and_field_is_on_the_page(tmp_path):
    gateway = Gateway(tmp_path / "state")
    with no_gateway_left([gateway]):
        device = gateway.device("cam")
        _, joined = device.join()
        assert device.work() == 204
        gateway.device("other")
        assert device.work() == ("evaluate", 0)
        status = device.status()
    names = {*joined, *joined["data"], *joined["model"], *device.task, *status, *status["devices"][0]}
    names |= {field.name for record in (PhaseConfig, EvaluationConfig, DataConfig) for field in fields(record)}
    names |= set(UPLOADS)
    assert not {name for name in names - {"source"} if f"`{name}`" not in PAGE}
    for method, path, _ in ROUTES:
        assert f"`{method} {path}" in PAGE


def test_the_limits_on_the_page_are_those_of_the_code():
    limits = Limits()
    rows = dict(re.findall(r"^\| ([a-z][^|`]*) \| ([^|]*) \|$", PAGE[PAGE.index("## Limits") :], re.MULTILINE))
    assert rows == {
        "request line": f"{limits.max_request_line_bytes:,} bytes",
        "all headers": f"{limits.max_head_bytes:,} bytes, {limits.max_headers} headers",
        "body of join": f"{MAX_JOIN_BYTES:,} bytes",
        "body of an evaluation": f"{MAX_EVALUATION_BYTES:,} bytes",
        "body of an update": f"4 bytes a parameter + {HEAD_BYTES:,} bytes",
        "a whole request, from its first byte to its last": f"{limits.request_deadline_s:g} s",
        "a connection on which nothing happens": f"{limits.idle_s:g} s, then it is closed",
        "a reader of an answer": f"{limits.write_stall_s:g} s for each {BLOCK >> 10} KiB, then it is cut",
        "connections at a time": f"{limits.max_connections}, or fewer where the process may open few files; "
        "where others want some too, half of them from one address before they say whose they are",
        "connections at a time with one session": f"{limits.max_session_connections}, the newest ones",
        "a request without a session, while others want its place": f"{limits.overdue_s:g} s",
        "uploads at a time of one device": "1, the newest one",
    }
    assert f"({MAX_WAIT_S:g} at most" in PAGE
    assert f"1 to {MAX_SAMPLES:,}" in PAGE
    assert f"a mean loss (0 to {LOSS_CEILING:,.0f})" in PAGE


def test_the_limits_on_the_security_page_are_those_of_the_code_and_its_commands_exist():
    page, limits = (ROOT.parent / "docs" / "security.md").read_text(), Limits()
    cells = re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \| [^|]* \|$", page[page.index("## Limits") :], re.MULTILINE)
    assert dict(cells) == {
        "request line": f"{limits.max_request_line_bytes:,} bytes",
        "all headers": f"{limits.max_head_bytes:,} bytes, {limits.max_headers} headers",
        "body of a join, of an evaluation": f"{MAX_JOIN_BYTES:,}, {MAX_EVALUATION_BYTES:,} bytes",
        "body of an update": f"4 bytes a parameter + {HEAD_BYTES:,} bytes",
        "a whole request": f"{limits.request_deadline_s:g} s",
        "silence, and a TLS handshake": f"{limits.idle_s:g} s",
        "a reader of an answer": f"{limits.write_stall_s:g} s for each {BLOCK >> 10} KiB",
        "connections at a time": f"{limits.max_connections}",
        "connections in reserve": f"1 in {RESERVED}",
        "connections of one address, before they say whose they are": "1 in 2",
        "connections of one session": f"{limits.max_session_connections}",
        "a stranger's request or handshake, when its place is wanted": f"{limits.overdue_s:g} s",
        "waiting for work": f"{MAX_WAIT_S:g} s",
        "uploads of one device at a time": "1",
        "new keys under one device token": f"1, then after {FIRST_S:g} s, {2 * FIRST_S:g} s, ... {LONGEST_S:g} s",
        "lines of the log about one thing": f"1, then after {FIRST_S:g} s, {2 * FIRST_S:g} s, ... {LONGEST_S:g} s",
        "what a peer wrote, in a line of the log or an answer": f"{MOST_SAID} characters",
    }
    assert f": {FOR_THE_RUN} are the run's own |" in page
    for command, options in re.findall(r"(?:^ {4}|`|; )edgemeta ([a-z-]+)([^`#\n>]*)", page, re.MULTILINE):
        known = {option for parameter in commands.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, command
