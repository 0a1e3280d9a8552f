"""What is changed while a run is at work: asked for in a file beside it, and followed by its coordinator.

`run.toml` stays as the run began. A change holds from the round that is open when it is followed; that round's record
says so, as what a run leads to depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig, assign, config_from, differing, put, to_dict
from edgemeta.errors import ConfigError
from edgemeta.fed.plan import impossible
from edgemeta.storage import held, read_kept, write_kept

CHANGES_FILE = "changes.json"  # in a run directory
FORMAT = "edgemeta-changes/1"
MAY_CHANGE = (
    "server.round_deadline_s",
    "server.fraction_fit",
    "server.min_available_clients",
    "server.min_fit_clients",
    "evaluation.every",
)
ANOTHER = "begin another run with it: 'edgemeta run new --config RUN.toml'"


@dataclass(frozen=True)
class Change:
    """settings: by dotted name; rounds: so many more, in the last phase; stop: the run is over as it is."""

    settings: Mapping[str, int | float] = field(default_factory=dict)
    rounds: int = 0
    stop: bool = False


@dataclass(frozen=True)
class Changes:
    """All of a run's changes, in the order in which they were asked for."""

    changes: tuple[Change, ...] = ()


def read_changes(run: Path) -> tuple[Change, ...]:
    """Return what was asked for of the run in a directory. Raises ConfigError and StorageError."""
    kept = read_kept(run / CHANGES_FILE, Changes, FORMAT, "restore it, or remove it and ask again by 'edgemeta run'")
    return kept.changes if kept else ()


def ask(run: Path, config: RunConfig, change: Change) -> RunConfig:
    """Ask for a change of the run in a directory; return the settings with it. Raises ConfigError and StorageError.

    config: as the run began.
    """
    with held(run / "changes.lock"):
        changes = (*read_changes(run), change)
        result = changed(config, changes)
        if complaints := impossible(result):
            raise ConfigError("; ".join(complaints))
        write_kept(run / CHANGES_FILE, Changes(changes), FORMAT)
        return result


def settings_of(assignments: Sequence[str]) -> dict[str, int | float]:
    """Return the settings in KEY=VALUE texts; raises ConfigError for what may not change while a run is at work."""
    settings: dict[str, int | float] = {}
    for text in assignments:
        table: dict[str, Any] = {}
        assign(table, text)
        key = text.partition("=")[0].strip()
        if key.endswith(".rounds"):
            raise ConfigError(f"'{key}': 'edgemeta run extend --rounds N' gives more, and 'edgemeta run stop' fewer")
        if key not in MAY_CHANGE:
            may = ", ".join(MAY_CHANGE)
            raise ConfigError(f"'{key}' cannot change while a run is at work (what can: {may}): {ANOTHER}")
        value: Any = table
        for part in key.split("."):
            value = value[part]
        if type(value) not in (int, float):
            raise ConfigError(f"{key} is {value!r}: expected a number")
        settings[key] = value
    return settings


def changed(config: RunConfig, changes: Sequence[Change]) -> RunConfig:
    """Return the settings that hold after changes; raises ConfigError for values that cannot be."""
    settings = to_dict(config)
    for change in changes:
        for key, value in change.settings.items():
            put(settings, key, value)
        last = settings["phases"][-1]
        last["rounds"] += change.rounds if last["rounds"] else 0
    return config_from(settings)


def as_begun(config: RunConfig, began: RunConfig, changes: Sequence[Change]) -> RunConfig:
    """Return settings with those taken back that a run was changed to since it began: they may be said either way."""
    settings, now, said = to_dict(config), differing(began, changed(began, changes)), differing(began, config)
    for key, (before, after) in now.items():
        if said.get(key) == (before, after):
            put(settings, key, before)
    return config_from(settings)


def stopped(changes: Sequence[Change]) -> bool:
    """Say whether the last word is that the run is over: more rounds take it back."""
    over = False
    for change in changes:
        over = (over or change.stop) and not change.rounds
    return over
