"""Real gateways and devices in processes of their own, for several tests."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import taught as taught_learners
from runs import without_seconds

from edgemeta.bench.loopback import Process, start
from edgemeta.config import config_from, to_toml
from edgemeta.fed.runs import run_of

SPEC = "synthetic:samples=120,size=8"
RUN = """
[model]
name = "mlp"
input_shape = [3]
classes = ["a", "b"]
[data]
participants = 2
[[phases]]
rounds = 2
"""


def taught(*arguments: object, log: Path) -> Process:
    """Start the command line with the learners of `taught.py`; what it says on standard error goes to `log`."""
    command = [sys.executable, taught_learners.__file__, *map(str, arguments)]
    with open(log, "a") as file:
        return Process(command, stdout=subprocess.PIPE, stderr=file, text=True)


def write_config(folder: Path, settings: dict[str, Any]) -> Path:
    """Write run.toml into a folder."""
    path = folder / "run.toml"
    path.write_text(to_toml(config_from(settings)))
    return path


def end(*processes: Process) -> None:
    """Kill and reap."""
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def server(folder: Path, *options: object, config: str = RUN) -> Iterator[tuple[Process, int | None]]:
    """Run `edgemeta server` in a folder of its own, and give the process and its port, if it listens without TLS."""
    (folder / "run.toml").write_text(config)
    process = start("server", "--config", "run.toml", "--port", 0, *options, log=folder / "log", cwd=folder)
    try:
        line = process.stdout.readline()
        yield process, int(line.rpartition(":")[2]) if line.startswith("listening on http://") else None
    finally:
        end(process)


def assert_same_run(folder: Path, reference: Path) -> None:
    """Compare two run directories: the model's bits, and the history but for seconds."""
    folder = run_of(folder)
    assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    ours, theirs = (
        without_seconds([json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()])
        for path in (folder, reference)
    )
    assert ours == theirs
    assert (folder / "summary.json").exists()
