"""A gateway and its devices as processes on this machine: what the demo shows and the benchmark measures."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgemeta.errors import EdgemetaError

Process = subprocess.Popen[str]


@contextmanager
def gateway(config: Path, state: Path, *options: str) -> Iterator[tuple[Process, str]]:
    """Run `edgemeta server` on a free port while the context lasts; gives the process and its URL.

    Its log is `state` with ".log" added. Raises EdgemetaError, with the end of the log, when it does not start.
    """
    log = state.with_suffix(".log")
    with open(log, "w") as file:
        command = ["server", "--config", str(config), "--state", str(state), "--port", "0", *options]
        process = _start(command, stdout=subprocess.PIPE, stderr=file)
    with ended(process):
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        if not url:
            raise EdgemetaError(f"the gateway did not start: {log.read_text()[-500:].strip()}")
        yield process, url


def device(url: str, state: Path, *options: str) -> Process:
    """Start `edgemeta client`; its log is `state` with ".log" added. The caller ends it."""
    with open(state.with_suffix(".log"), "w") as file:
        return _start(["client", "--server", url, "--state", str(state), "--name", state.name, *options], stderr=file)


@contextmanager
def ended(*processes: Process) -> Iterator[Sequence[Process]]:
    """End processes with the context, if they have not ended by themselves."""
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate()


def records(state: Path, after: int) -> list[dict[str, Any]]:
    """Return the records that a running gateway has written, but for the first `after` of them."""
    path = state / "history.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # the last one may be half written
    return [json.loads(line) for line in lines[after:]]


def memory_mb(process: Process, peak: bool = False) -> float:
    """Return how much memory a process has in use now, or had at its peak (Linux's VmRSS and VmHWM), in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    field = "VmHWM:" if peak else "VmRSS:"
    return int(status.partition(field)[2].split()[0]) / 1024


def _start(arguments: Sequence[str], **streams: int | IO[str]) -> Process:
    command = [sys.executable, "-m", "edgemeta", *arguments]
    return subprocess.Popen(command, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **streams)  # type: ignore[call-overload,no-any-return]
