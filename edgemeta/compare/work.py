"""Work on one entry at one seed: what it takes to know every participant's scores, in one folder, from where it was."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgemeta import api, disk
from edgemeta.compare.entries import Entry, Kind
from edgemeta.compare.rows import Scores
from edgemeta.compare.scoring import adapted, alone, of_each, scored, ways_of
from edgemeta.config import EvaluationConfig, RunConfig
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import ConfigError, ModelFileError
from edgemeta.fed.claim import claim
from edgemeta.fed.comparison import fedavg_of
from edgemeta.fed.plan import Plan
from edgemeta.fed.simulation import RunResult
from edgemeta.storage import Damaged, set_aside, storing

Result = TypeVar("Result")

logger = logging.getLogger("edgemeta")


@dataclass(frozen=True)
class Shown:
    """How a comparison tells what it does. hooks: of a run, for its last round; on_each: participants scored."""

    begins: Callable[[str], None] = lambda _: None
    hooks: Callable[[int | None], Mapping[str, Any]] = lambda _: {}
    on_each: Callable[[int, int], None] = lambda *_: None
    finished: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Place:
    """Where an experiment lies, and how it is worked at."""

    out: Path
    jobs: int = 1
    shown: Shown = field(default_factory=Shown)

    def folder(self, name: str) -> Path:
        """Return the folder of one run."""
        return self.out / "runs" / name


def prepared(entry: Entry, config: RunConfig) -> api.Prepared:
    """Return a run that can start, as the entry's kind has it; raises DataError and ConfigError."""
    try:
        ready = api.prepare(config)
    except ConfigError as error:
        raise ConfigError(f"{entry.name}: {error}") from None
    return replace(ready, config=fedavg_of(ready.config)) if entry.kind is Kind.FEDAVG else ready


def every_score(entry: Entry, ready: api.Prepared, folder: Path, place: Place) -> list[Scores]:
    """Run, or go on with, an entry in a folder, and return its participants' scores; raises DivergedError."""
    if entry.kind is Kind.ALONE:
        _mended(folder, partial(_claimed, folder, ready))
        everyone = range(len(ready.participants))
        return of_each(partial(alone, ready), everyone, folder / "scores", place.jobs, place.shown.on_each)
    result = trained(ready, folder, place)
    return adapted_scores(ready, result, ways_of(ready.config.evaluation, ready.network), folder / "scores", place)


def trained(ready: api.Prepared, folder: Path, place: Place) -> RunResult:
    """Run, or go on with, a run in its folder, and return what it leads to; raises DivergedError.

    What is damaged there, or lacks rounds that it had, is set aside, and the run begins again.
    """
    rounds = Plan(ready.config).last_round or 0

    def whole() -> RunResult:
        result = api.start(ready, folder, jobs=place.jobs, **place.shown.hooks(rounds))
        if len(result.history) <= rounds:  # the start has a record, too
            raise Damaged(f"{folder} has records of {len(result.history)} of {rounds + 1} rounds: they were lost")
        return result

    return _mended(folder, whole)


def adapted_scores(
    ready: api.Prepared, result: RunResult, ways: Mapping[str, EvaluationConfig], folder: Path, place: Place
) -> list[Scores]:
    """Return the scores of participants that each adapt a model in several ways."""
    work = partial(adapted, ready, result.model.theta, result.beside, ways)
    return of_each(work, scored(ready), folder, place.jobs, place.shown.on_each)


def _claimed(folder: Path, ready: api.Prepared) -> None:
    """Make a folder that of this run, or raise ConfigError when it is another's."""
    with storing(folder):
        disk.make_folder(folder)
    claim(folder, ready.config, fingerprint(ready.data))


def _mended(folder: Path, work: Callable[[], Result]) -> Result:
    """Do some work in a folder; where that is damaged, set it aside, and do the work anew."""
    try:
        return work()
    except (Damaged, ModelFileError) as error:
        logger.warning("%s; it is kept as %s, and made again", error, set_aside(folder))
        return work()
