"""Real gateways and devices in processes of their own, for several tests."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from runs import environment, without_seconds

from edgemeta.config import config_from, to_toml
from edgemeta.meta.learners import GradientAt, Learner

SPEC = "synthetic:samples=120,size=8"


def _counting(model: Any, vectors: Any, batches: Any, recipe: Any, workspace: Any) -> Any:
    return [], {"theta": GradientAt(vectors["theta"], batches[0]), "count": np.full(1, -1 / recipe.lr, np.float32)}


# A learner that counts its own steps in a vector that never travels.
COUNTING = Learner(_counting, lambda _: 1, lambda _: 1, "none", {"count": lambda _: np.zeros(1, np.float32)})


def write_config(folder: Path, settings: dict[str, Any]) -> Path:
    """Write run.toml into a folder."""
    path = folder / "run.toml"
    path.write_text(to_toml(config_from(settings)))
    return path


def start(*arguments: object, log: Path | None = None, **how: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own; standard error goes to the end of `log`."""
    command = [sys.executable, "-m", "edgemeta", *map(str, arguments)]
    with open(log or "/dev/null", "a") as errors:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(), **how)


def start_gateway(config: Path, state: Path, port: int = 0, log: Path | None = None) -> tuple[Any, int]:
    """Start a gateway and return its process and port."""
    process = start("server", "--config", config, "--port", port, "--state", state, log=log)
    found = re.search(r":(\d+)$", process.stdout.readline().strip())
    assert found, "the gateway did not start"
    return process, int(found[1])


def end(*processes: subprocess.Popen[str]) -> None:
    """Kill and reap."""
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def gateway(config: Path, state: Path) -> Iterator[str]:
    """Run a gateway for a while, and give its URL."""
    process, port = start_gateway(config, state)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def assert_same_run(folder: Path, reference: Path) -> None:
    """Compare two run directories: the model's bits, and the history but for seconds."""
    assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    ours, theirs = (
        without_seconds([json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()])
        for path in (folder, reference)
    )
    assert ours == theirs
    assert (folder / "summary.json").exists()
