"""Work on one entry at one seed: what it takes to know every participant's scores, in one folder, from where it was."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgemeta import api
from edgemeta.compare.entries import Entry, Kind
from edgemeta.compare.rows import Scores
from edgemeta.compare.scoring import adapted, alone, of_each, ways_of
from edgemeta.config import EvaluationConfig, RunConfig
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import ConfigError
from edgemeta.fed.claim import claim
from edgemeta.fed.comparison import fedavg_of
from edgemeta.fed.plan import Plan
from edgemeta.nn import Vector
from edgemeta.storage import storing


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
    count, shown = len(ready.participants), place.shown
    if entry.kind is Kind.ALONE:
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        claim(folder, ready.config, fingerprint(ready.data))
        return of_each(partial(alone, ready), count, folder / "scores", place.jobs, shown.on_each)
    theta = trained(ready, folder, place)
    return adapted_scores(ready, theta, ways_of(ready.config.evaluation), folder / "scores", place)


def trained(ready: api.Prepared, folder: Path, place: Place) -> Vector:
    """Run, or go on with, a run in its folder, and return its final model; raises DivergedError."""
    hooks = place.shown.hooks(Plan(ready.config).last_round)
    return api.start(ready, folder, jobs=place.jobs, **hooks).model.theta


def adapted_scores(
    ready: api.Prepared, theta: Vector, ways: Sequence[EvaluationConfig], folder: Path, place: Place
) -> list[Scores]:
    """Return the scores of every participant that adapts a model in several ways."""
    work = partial(adapted, ready, theta, ways)
    return of_each(work, len(ready.participants), folder, place.jobs, place.shown.on_each)
