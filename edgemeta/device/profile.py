"""A board's profile: what it lets edgemeta use. Local limits only; nothing here changes what is computed."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from edgemeta.device.guard import total_mb
from edgemeta.errors import ConfigError
from edgemeta.nn.kernels.workspace import MAX_THREADS
from edgemeta.records import number, record_from


@dataclass(frozen=True)
class Profile:
    """threads: that share a step; any number gives the same bits. nice: the process's priority, 19 the lowest.

    memory_mb: the most that the process may take; a task that would need more is refused. hold_s: for how long the
    gateway may hold back its answer when there is no work. poll_s: the least between two such questions. upload_kb_s:
    the rate of uploads, in 1,000 bytes a second. None: no limit.
    """

    threads: int = number(1, 1, MAX_THREADS)
    nice: int = number(0, 0, 19)
    memory_mb: int | None = number(None, 64)  # Python with NumPy takes 40
    hold_s: float = number(30.0, 0, 60)  # 60: the most that a gateway waits
    poll_s: float = number(0.0, 0, 3600)
    upload_kb_s: float | None = number(None, 40)  # slower, and `cnn` could not be sent within a request's 300 s


def read_profile(path: str | Path) -> Profile:
    """Return the profile in a TOML file; raises ConfigError for unknown keys and limits that cannot be."""
    try:
        with open(path, "rb") as file:
            profile = record_from(Profile, tomllib.load(file))
    except OSError as error:
        raise ConfigError(
            f"cannot read the profile {path}: {error.strerror}; the folder devices/ has one for each board"
        ) from None
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, or no TOML
        raise ConfigError(f"the profile {path} is no TOML file: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"the profile {path}: {error}") from None
    machine_mb = total_mb()
    if profile.memory_mb and profile.memory_mb > machine_mb:
        raise ConfigError(
            f"the profile {path}: memory_mb is {profile.memory_mb}, and this machine has {machine_mb:.0f}: "
            "take the profile of this board"
        )
    return profile


def be_nice(level: int) -> None:
    """Give this process a lower priority, unless it has a lower one already."""
    os.setpriority(os.PRIO_PROCESS, 0, max(level, os.getpriority(os.PRIO_PROCESS, 0)))
