"""One finished run of a comparison, as a small file that needs nothing beside it: what tables and the page are made of.

OUT/rows/NAME-seed-0.json       such a file
OUT/runs/NAME-seed-0/           the run directory behind it, and scores/, each participant's of the final model
OUT/runs/NAME-tuning-0/         the same on a share of the training data set aside, to choose settings
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemeta.compare.entries import Kind
from edgemeta.reading import read_file
from edgemeta.records import Record, number
from edgemeta.storage import Damaged, read_kept

FORMAT = "edgemeta-comparison/1"
ADVICE = "remove it, and the same command makes it again"

logger = logging.getLogger("edgemeta")


@dataclass(frozen=True)
class Cell:
    """A participant's accuracy after one adaptation: so many steps on so many of its training samples."""

    adaptation: str
    steps: int = number(0, 0)
    support: int = number(1, 1)
    accuracy: float = number(0.0, 0, 1)


@dataclass(frozen=True)
class Few:
    """A participant's mean accuracy over few-shot episodes; None where it has too few classes for them."""

    adaptation: str
    ways: int = number(2, 2)
    shots: int = number(1, 1)
    accuracy: float | None = number(None, 0, 1)


@dataclass(frozen=True)
class Scores:
    """A participant's accuracies on its own test samples.

    train, test: how many samples it has. before: of the global model as it is, None where there is none; after: adapted
    as the configuration says. gradients: how many it took alone.
    """

    participant: int = number(0, 0)
    train: int = number(0, 0)
    test: int = number(0, 1)
    before: float | None = number(None, 0, 1)
    after: float = number(0.0, 0, 1)
    cells: list[Cell] = field(default_factory=list)
    few: list[Few] = field(default_factory=list)
    gradients: int = number(0, 0)


@dataclass(frozen=True)
class Reach:
    """Mean accuracies of one kind of participants after a round; before: None where there is no global model to ask."""

    before: float | None = number(None, 0, 1)
    after: float = number(0.0, 0, 1)
    p10: float = number(0.0, 0, 1)


@dataclass(frozen=True)
class Point:
    """Where a run was after an evaluated round, and what it had taken until then."""

    round: int = number(0, 0)
    gradients: int = number(0, 0)
    bytes: int = number(0, 0)
    seconds: float = number(0.0, 0)
    known: Reach | None = None
    new: Reach | None = None


@dataclass(frozen=True)
class Tried:
    """A combination of settings, and the mean accuracy of adapted training participants on data set aside."""

    chosen: dict[str, Any]
    accuracy: float | None = number(None, 0, 1)
    diverged: str = ""


@dataclass(frozen=True)
class Row:
    """A run. asked: its settings as given; config: as resolved. data: the data's fingerprint. diverged: why it ended.

    unused: what of the data nobody has, in sentences. tried: how settings were chosen, the best first.
    """

    name: str
    kind: Kind
    seed: int
    asked: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    diverged: str = ""
    tried: list[Tried] = field(default_factory=list)
    validation: float = 0.0
    rounds: int = number(0, 0)

    @property
    def at_work(self) -> bool:
        """Whether it has not ended yet, neither way."""
        return not self.scores and not self.diverged


def row_path(out: Path, name: str, seed: int) -> Path:
    """Return where a row is kept."""
    return out / "rows" / f"{name}-seed-{seed}.json"


def kept(path: Path, kind: type[Record]) -> Record | None:
    """Return what a file keeps, or None; a damaged one is said, and made again. Raises ConfigError for a newer one."""
    try:
        return read_kept(path, kind, FORMAT, ADVICE)
    except Damaged as error:
        logger.warning("%s", error)
        return None


def curve_of(history: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Return the evaluated rounds of a run's records, with sums over the rounds until then."""
    points, gradients, weight, seconds = [], 0, 0, 0.0
    for record in history:
        gradients += record["gradient_evaluations"]
        weight += record["bytes_down"] + record["bytes_up"]
        seconds += record["seconds"]
        reached = [_reach(record[key]) if key in record else None for key in ("evaluation", "evaluation_new")]
        if any(reached):
            points.append(Point(record["round"], gradients, weight, seconds, *reached))
    return points


def history_in(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run that may be at work, or cut in the middle: those that are whole."""
    records = []
    for line in (read_file(folder / "history.jsonl") or b"").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _reach(evaluation: Mapping[str, Any]) -> Reach:
    before, after = evaluation["before"], evaluation["after"]["accuracy"]
    return Reach(before["accuracy"]["mean"] if before else None, after["mean"], after["p10"])
