"""A gateway and its devices as processes on this machine: what the demo shows and the benchmark measures."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemeta.errors import EdgemetaError
from edgemeta.fed.runs import run_of
from edgemeta.fed.scores import Record

Process = subprocess.Popen[str]


def start(*arguments: object, log: Path, **how: Any) -> Process:
    """Start the command line in a process of its own; what it says on standard error goes to the end of `log`.

    how: further arguments of `subprocess.Popen`. The caller ends it.
    """
    command = [sys.executable, "-m", "edgemeta", *map(str, arguments)]
    with open(log, "a") as file:
        streams: Any = {"stdout": subprocess.PIPE, "stderr": file, "env": os.environ | {"PYTHONUNBUFFERED": "1"}}
        return subprocess.Popen(command, text=True, **streams, **how)


def start_gateway(config: Path, state: Path, *options: object) -> tuple[Process, str]:
    """Start `edgemeta server`, on a free port unless the options say which, and return the process and its URL.

    Its log is `state` with ".log" added. Raises EdgemetaError, with the end of the log, when it does not start.
    """
    log = state.with_suffix(".log")
    process = start("server", "--config", config, "--state", state, "--port", 0, *options, log=log)
    assert process.stdout is not None
    url = process.stdout.readline().rpartition(" ")[2].strip()
    if not url:
        process.communicate()
        raise EdgemetaError(f"the gateway did not start: {log.read_text()[-500:].strip()}")
    return process, url


@contextmanager
def gateway(config: Path, state: Path, *options: object) -> Iterator[tuple[Process, str]]:
    """Run `start_gateway`'s process while the context lasts; gives it and its URL."""
    process, url = start_gateway(config, state, *options)
    with ended(process):
        yield process, url


def device(url: str, state: Path, *options: object) -> Process:
    """Start `edgemeta client`; its log is `state` with ".log" added. The caller ends it."""
    arguments = ("client", "--server", url, "--state", state, "--name", state.name, *options)
    return start(*arguments, log=state.with_suffix(".log"))


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


def records(state: Path, after: int) -> list[Record]:
    """Return the records that a running gateway has written, but for the first `after` of them."""
    path = run_of(state) / "history.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # the last one may be half written
    return [json.loads(line) for line in lines[after:]]


def memory_mb(process: Process, peak: bool = False) -> float:
    """Return how much memory a process has in use now, or had at its peak (Linux's VmRSS and VmHWM), in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    field = "VmHWM:" if peak else "VmRSS:"
    return int(status.partition(field)[2].split()[0]) / 1024
