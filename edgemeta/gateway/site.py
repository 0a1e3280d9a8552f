"""A site: a gateway's state directory, in which runs follow each other.

    tls/, devices.json     what stays: the certificate, and who may take part
    seen.json              when each device was last heard
    model.safetensors      the newest global model
    runs/0001/             a run directory (`edgemeta.fed.directory`), with who has joined it (roster.json) and what was
                           changed meanwhile (changes.json)
    lock                   held by the gateway at work

A run is made under another name, and is there when it has its own: a kill leaves all of it or nothing.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemeta import disk
from edgemeta.config import RunConfig, differing
from edgemeta.data.fingerprint import Fingerprint
from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.changes import MAY_CHANGE, as_begun, read_changes
from edgemeta.fed.claim import claim
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress
from edgemeta.fed.runs import RUNS, config_of, is_over, runs
from edgemeta.fed.server_step import begin
from edgemeta.nn import Model, Vector
from edgemeta.reading import exists, names
from edgemeta.storage import held, lock, storing

log = logging.getLogger("edgemeta")

TAKEN = "0001.taken"
# What lay in a state directory before there were sites, beside progress.json.
OF_A_RUN = ("run.toml", "data.json", "history.jsonl", "summary.json", "roster.json", "rounds")


@contextmanager
def opened(site: Path) -> Iterator[None]:
    """Hold a site for the one gateway that works in it; a state directory of before becomes one.

    Raises StorageError when another gateway has it, or it cannot be written.
    """
    with storing(site):
        disk.make_folder(site, named=True)
    locked = lock(site / "lock")
    if locked is None:
        raise StorageError(f"another gateway works in {site}: wait for it, or give another folder")
    try:
        _take_over(site)
        yield
    finally:
        disk.system.close(locked)


def has_run(site: Path) -> bool:
    """Say whether a state directory has a run, also as one had before there were sites."""
    return bool(runs(site)) or exists(site / "progress.json") or exists(site / RUNS / TAKEN)


def begin_run(
    site: Path,
    config: RunConfig,
    network: Model,
    theta: Vector,
    data: Fingerprint | None = None,
) -> Path:
    """Make the next run of a site, which a gateway at work there takes up, and return its directory.

    config: resolved; theta: where it starts; data: of what the configuration was resolved with, if that was opened.
    Raises ConfigError while the run before is not over, and StorageError.
    """
    with storing(site):
        disk.make_folder(site / RUNS)
    with held(site / "runs.lock"):
        before = runs(site)
        if before and not is_over(before[-1]):
            raise ConfigError(f"run {before[-1].name} is not over: 'edgemeta run stop' ends it as it is")
        run = site / RUNS / f"{int(before[-1].name) + 1 if before else 1:04d}"
        temporary = run.with_suffix(".tmp")
        with storing(temporary):
            _remove(temporary)  # of a kill
        directory, plan = RunDirectory(temporary, config, data=data, elsewhere=data is None), Plan(config)
        try:
            begin(directory, plan, network, theta)
            directory.commit(Progress(record={**plan.new_record(0)}))
        finally:
            directory.close()
        with storing(run):
            disk.rename(temporary, run)
            disk.sync_folder(run.parent)
    return run


def compare(site: Path, config: RunConfig, data: Fingerprint | None, given: str) -> None:
    """Raise ConfigError unless these settings and data are those with which the site's first run began.

    given: the options that say them, for the command that begins a run with them.
    """

    def advice(before: RunConfig, asked: RunConfig) -> str:
        where, settings = f"--state {site}", {key: new for key, (_, new) in differing(before, asked).items()}
        last = f"phases.{len(before.phases) - 1}.rounds"
        if settings and settings.keys() <= set(MAY_CHANGE):
            what = " ".join(f"{key}={value}" for key, value in settings.items())
            return f"'edgemeta run set {what} {where}' changes that in the run at work"
        if settings.keys() == {last} and 0 < before.phases[-1].rounds < settings[last]:
            more = settings[last] - before.phases[-1].rounds
            return f"'edgemeta run extend --rounds {more} {where}' has the run go on for so many more"
        return (
            f"'edgemeta run new {given} {where}' begins another run for the same devices, "
            f"once this one is over ('edgemeta run stop {where}' ends it as it is)"
        )

    first = runs(site)[0]
    claim(
        *(first, as_begun(config, config_of(first), read_changes(first)), data),
        elsewhere=data is None,
        advice=advice,
    )


def _take_over(site: Path) -> None:
    """Make the run of a state directory of before, which had just one, the first one of the site."""
    taken = site / RUNS / TAKEN
    with storing(site):
        if not exists(taken):
            if runs(site) or not exists(site / "progress.json"):
                return
            disk.make_folder(taken)
        for name in names(site):
            if name in OF_A_RUN or name.endswith(".damaged"):
                disk.rename(site / name, taken / name)
        if exists(site / "progress.json"):  # last: it says that there is something to be taken over
            disk.rename(site / "progress.json", taken / "progress.json")
        disk.sync_folder(taken)
        disk.sync_folder(site)
        _remove(site / "incoming")
        disk.rename(taken, taken.with_name(TAKEN.partition(".")[0]))
        disk.sync_folder(taken.parent)
    log.info("%s is a site now: its run is in %s", site, runs(site)[0])


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it, if there is one."""
    if not exists(path):
        return
    for name in disk.names(path):
        inside = path / name
        try:
            disk.remove(inside)
        except IsADirectoryError:
            _remove(inside)
    disk.remove_folder(path)
