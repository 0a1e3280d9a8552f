"""The runs that follow each other in a site, a gateway's state directory: SITE/runs/0001, and so on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig, config_from, settings_in
from edgemeta.errors import ConfigError
from edgemeta.fed.changes import changed, read_changes, stopped
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import FORMAT, Progress, Stage
from edgemeta.reading import exists, names, read_file
from edgemeta.storage import read_kept

RUNS = "runs"


def runs(site: Path) -> list[Path]:
    """Return the run directories of a site, oldest first."""
    folder = site / RUNS
    return [folder / name for name in names(folder) if name.isdecimal()] if exists(folder) else []


def is_followed(run: Path) -> bool:
    """Say whether a run of a site has another one after it."""
    return run != run_of(run.parent.parent) and run.parent.name == RUNS


def run_of(path: Path) -> Path:
    """Return the newest run of a site, and of any other folder that folder: it is a run directory, if anything."""
    there = runs(path)
    return there[-1] if there else path


def config_of(run: Path) -> RunConfig:
    """Return the settings with which a run began. Raises ConfigError when there is none, and StorageError."""
    text = read_file(run / "run.toml")
    if text is None:
        raise ConfigError(f"there is no run in {run}: 'edgemeta server' and 'edgemeta run new' begin one")
    return config_from(settings_in(text, run / "run.toml"))


def progress_of(run: Path) -> Progress:
    """Return where a run is. Raises ConfigError and StorageError."""
    return read_kept(run / "progress.json", Progress, FORMAT, "the gateway's log says more") or Progress()


def is_over(run: Path) -> bool:
    """Say whether a run has ended, or will as soon as a gateway looks at it."""
    return progress_of(run).stage is Stage.OVER or stopped(read_changes(run))


def shown_run(run: Path) -> dict[str, Any]:
    """Return what is known of a run, ready for JSON: its number, state, rounds, model, learners and changes."""
    changes, progress = read_changes(run), progress_of(run)
    plan = Plan(changed(config_of(run), changes))
    return {
        "run": run.name,
        "state": "stopped" if stopped(changes) else "over" if progress.stage is Stage.OVER else "open",
        "round": progress.model,
        "last_round": plan.last_round,
        "model": plan.config.model.name,
        "algorithms": list(dict.fromkeys(phase.algorithm for phase in plan.config.phases)),
        "changes": [{key: value for key, value in asdict(change).items() if value} for change in changes],
    }
