"""Small runs and real processes that several tests share."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

TINY: dict[str, Any] = {
    "seed": 3,
    "model": {"name": "mlp"},
    "data": {"source": "synthetic:samples=120,size=8", "participants": 4, "held_out": 1, "partition": "shards:3"},
    "phases": [
        {"name": "meta-training", "algorithm": "fomaml", "rounds": 2, "local_steps": 2, "batch_size": 4},
        {"name": "federated", "algorithm": "fedavg", "rounds": 2, "local_steps": 2, "batch_size": 4, "momentum": 0.5},
    ],
    "evaluation": {"every": 2, "support": 8, "grid": [[1, 4]], "episodes": 2, "ways": 2, "shots": [1]},
}


def command_line(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "edgemeta", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def without_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without the one thing that may differ between two equal runs."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def arrays(count: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return random grey pictures (count, 4, 4, 1) uint8 and their labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4, 4, 1), np.uint8), np.arange(count, dtype=np.int64) % classes
