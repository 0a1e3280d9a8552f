"""Memory, looked at before a task is begun: better a refusal that says why than a process that the kernel kills.

A task is refused and not split: batches are worked through in chunks already, and a smaller batch would be another
computation, with other results.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from edgemeta.errors import EdgemetaError
from edgemeta.nn import Model

VECTORS = 6  # of the network's size that a step has at once: parameters, gradients, velocity, the task as it came
OF_A_BATCH = 3  # times the outputs of all layers: for the backward pass, with its scratch
OF_A_CHUNK = 5  # the same, of a thread's scratch
ALWAYS_MB = 8.0


class NoMemory(EdgemetaError):
    """A task takes more memory than there is, or than the profile allows."""


def needed_mb(network: Model, batch_size: int, samples: int) -> float:
    """Return what a task takes at most, beside the process as it is: measured peaks are 34 to 75 % of this."""
    shape, outputs = network.input_shape, math.prod(network.input_shape)
    for layer in network.layers:
        shape, _ = layer.shapes(shape)
        outputs += math.prod(shape)
    values = VECTORS * network.layout.size + OF_A_BATCH * batch_size * outputs
    values += OF_A_CHUNK * (network.threads - 1) * network.chunk * outputs
    sample_bytes = math.prod(network.input_shape) * (1 if len(network.input_shape) == 3 else 4)
    return ALWAYS_MB + (4 * values + sample_bytes * samples) / 2**20


class Guard:
    """Says whether there is memory for a task. memory_mb: the most that the process may take, None: what there is."""

    def __init__(self, memory_mb: int | None = None) -> None:
        self._most_mb, self._base_mb = memory_mb, used_mb()

    def check(self, network: Model, batch_size: int, samples: int) -> None:
        """Raise NoMemory unless a task of so large batches fits; samples: how many the device holds."""
        needed, base = needed_mb(network, batch_size, samples), self._base_mb
        task = f"a step of {network.name} at batch size {batch_size} takes some {needed:.0f} MB"
        advice = "give the run a smaller model or batch_size, or this device fewer samples"
        if self._most_mb is not None and base + needed > self._most_mb:
            raise NoMemory(
                f"{task} beside the {base:.0f} MB of the process, and memory_mb in the profile is {self._most_mb}: "
                f"{advice}"
            )
        free = free_mb() + max(used_mb() - base, 0)  # what earlier tasks took is used again
        if needed > free:
            raise NoMemory(f"{task}, and {free:.0f} MB are free here: end other programs, or {advice}")


def used_mb() -> float:
    """Return this process's resident memory."""
    return _field(Path("/proc/self/status"), "VmRSS:")


def total_mb() -> float:
    """Return the machine's memory, or what this process's control group may have of it."""
    return min(_field(Path("/proc/meminfo"), "MemTotal:"), *_limits_mb(), math.inf)


def free_mb() -> float:
    """Return the memory that can be had without swapping, here or within this process's control group."""
    return min(_field(Path("/proc/meminfo"), "MemAvailable:"), *(limit - used_mb() for limit in _limits_mb()), math.inf)


def _field(path: Path, name: str) -> float:
    """Return one line of a file of /proc in MB, infinity where it is not there: no system but Linux has it."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return math.inf if name != "VmRSS:" else 0.0


def _limits_mb() -> Iterator[float]:
    """Yield the limits of this process's control group, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        root = Path("/sys/fs/cgroup")
        place = (root, "memory.max") if not kinds else (root / "memory", "memory.limit_in_bytes")
        if kinds in ("", "memory"):
            try:
                yield int((place[0] / group.lstrip("/") / place[1]).read_text()) / 2**20
            except (OSError, ValueError):  # "max": no limit
                continue
