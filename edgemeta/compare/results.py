"""From rows to figures: every entry over its seeds, for participants that trained and for new ones.

A figure is one number a seed; tables show its mean, and how far the seeds lie apart (largest - smallest).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgemeta.compare.entries import Kind
from edgemeta.compare.rows import Point, Reach, Row, Scores

GROUPS = ("known", "new")  # participants that trained, and those held out
STEP = 0.05  # targets that nobody has named are multiples of it


class Figure(NamedTuple):
    """One number a seed."""

    seeds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return sum(self.seeds) / len(self.seeds)

    @property
    def spread(self) -> float:
        """How far the seeds lie apart: largest minus smallest."""
        return max(self.seeds) - min(self.seeds)


@dataclass(frozen=True)
class Way:
    """Accuracies after one adaptation, over participants: the mean by test samples, and the 10th percentile.

    worse: the share of participants that it made worse; None where there is nothing before it. short: the fewest
    training samples that one of them has, where that is less than `support`.
    """

    adaptation: str
    steps: int
    support: int
    mean: Figure
    p10: Figure
    worse: Figure | None
    short: int | None = None


@dataclass(frozen=True)
class Task:
    """Accuracies in few-shot episodes: the mean over participants that have classes enough, and how many those are."""

    adaptation: str
    ways: int
    shots: int
    mean: Figure
    participants: int


@dataclass(frozen=True)
class Until:
    """What it took until a mean accuracy, adapted as configured, was reached; None where some seed never does.

    reached: in how many of the seeds.
    """

    reached: int
    rounds: Figure | None = None
    gradients: Figure | None = None
    bytes: Figure | None = None
    seconds: Figure | None = None


@dataclass(frozen=True)
class Group:
    """What is known of one kind of participants. before, after: the global model as it is, and adapted as configured.

    ways, tasks: the final model in other adaptations, and in few-shot episodes.
    """

    before: Figure | None = None
    after: Way | None = None
    ways: list[Way] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    until: Until | None = None


@dataclass(frozen=True)
class Line:
    """An entry of a comparison. rows: those that are finished, diverged or at work, by seed; state: in a few words.

    gradients: on training participants; both they and bytes are of whole runs.
    """

    name: str
    rows: list[Row]
    state: str
    groups: dict[str, Group]
    gradients: Figure | None = None
    bytes: Figure | None = None
    seconds: Figure | None = None

    @property
    def whole(self) -> list[Row]:
        """The rows that ended well."""
        return [row for row in self.rows if row.scores]

    @property
    def shown(self) -> list[Row]:
        """The rows whose curves are shown: those that ended well, or where none did, the others."""
        return self.whole or self.rows


def lines_of(rows: Sequence[Row], targets: dict[str, float | None], count: int) -> list[Line]:
    """Return the lines of a comparison of so many seeds, in the order of their first rows."""
    names = list(dict.fromkeys(row.name for row in rows))
    return [_line(name, [row for row in rows if row.name == name], targets, count) for name in names]


def targets_of(rows: Sequence[Row], asked: float | None) -> dict[str, float | None]:
    """Return the accuracy to be reached, by group: the one asked for, or the highest that two entries reach.

    That is rounded down to 0.05; where one entry has no curve, there is nothing to reach.
    """
    best: dict[str, dict[str, list[float]]] = {group: {} for group in GROUPS}
    for row in rows:
        for group in GROUPS:
            reached = [reach.after for point in row.curve if (reach := of(point, group))]
            if reached and row.scores:
                best[group].setdefault(row.name, []).append(max(reached))
    targets: dict[str, float | None] = {}
    for group, entries in best.items():
        highest = sorted((min(seeds) for seeds in entries.values()), reverse=True)[:2]
        targets[group] = asked if asked is not None and entries else _down(highest[-1]) if highest else None
        targets[group] = targets[group] or None  # everyone reaches nothing
    return targets


def of(point: Point, group: str) -> Reach | None:
    """Return what one kind of participants reached at a point."""
    return point.known if group == "known" else point.new


def totals(row: Row) -> tuple[int, int, float]:
    """Return a row's gradients on training participants, bytes and seconds; alone, only gradients are known."""
    if row.kind is Kind.ALONE:
        return sum(one.gradients for one in _group(row, "known")), 0, 0.0
    last = row.curve[-1] if row.curve else Point()
    return last.gradients, last.bytes, last.seconds


def _down(value: float) -> float:
    return round(math.floor(value / STEP + 1e-9) * STEP, 2)


def _line(name: str, rows: list[Row], targets: dict[str, float | None], count: int) -> Line:
    whole = [row for row in rows if row.scores]
    gradients, weight, seconds = (_figure(totals(row)[i] for row in whole) for i in range(3))
    alone = rows[0].kind is Kind.ALONE
    groups = {
        group: _grouped(whole, group, targets[group]) if whole else _so_far([row for row in rows if row.curve], group)
        for group in GROUPS
    }
    return Line(name, rows, _state(rows, count), groups, gradients, *((None, None) if alone else (weight, seconds)))


def _state(rows: Sequence[Row], count: int) -> str:
    """Return in a few words how many seeds there are, of how many, and what became of the others."""
    whole, diverged = sum(bool(row.scores) for row in rows), sum(bool(row.diverged) for row in rows)
    said = [str(count) if whole == count else f"{whole} of {count}"] if whole or not diverged else []
    said += [f"{diverged} diverged" if whole or diverged < count else "diverged"] if diverged else []
    said += [f"at round {row.curve[-1].round} of {row.rounds}" for row in rows if row.curve and row.at_work][:1]
    return ", ".join(said)


def _group(row: Row, group: str) -> list[Scores]:
    data = row.config["data"]
    train = data["participants"] - data.get("held_out", 0)
    return [one for one in row.scores if (one.participant < train) == (group == "known")]


def _grouped(rows: Sequence[Row], group: str, target: float | None) -> Group:
    people = [scores for row in rows if (scores := _group(row, group))]
    if not people:
        return Group()
    before = None
    if all(one.before is not None for scores in people for one in scores):
        before = Figure(tuple(_mean(scores, lambda one: one.before or 0.0) for scores in people))
    adaptation = people[0][0].cells[0].adaptation if people[0][0].cells else "alone"
    evaluation = {} if rows[0].kind is Kind.ALONE else rows[0].config["evaluation"]
    steps, support = evaluation.get("adapt_steps", 0), evaluation.get("support", 0)
    after = _way(people, adaptation, steps, support, lambda one: one.after)
    ways = [
        _way(people, cell.adaptation, cell.steps, cell.support, lambda one, i=i: one.cells[i].accuracy)  # type: ignore[misc]
        for i, cell in enumerate(people[0][0].cells)
    ]
    return Group(before, after, ways, _tasks(people), _until(rows, group, target))


def _tasks(people: Sequence[Sequence[Scores]]) -> list[Task]:
    found = []
    for i, few in enumerate(people[0][0].few):
        seeds = [[mean for one in scores if (mean := one.few[i].accuracy) is not None] for scores in people]
        if all(seeds):
            means = Figure(tuple(float(np.mean(means)) for means in seeds))
            found.append(Task(few.adaptation, few.ways, few.shots, means, min(map(len, seeds))))
    return found


def _so_far(rows: Sequence[Row], group: str) -> Group:
    """Return what runs that have not ended well had reached when they were last evaluated."""
    last = [reach for row in rows if not row.diverged and (reach := of(row.curve[-1], group))]
    if not last:
        return Group()
    evaluation = rows[0].config["evaluation"]
    before = [reach.before for reach in last if reach.before is not None]
    after = Way(
        *(evaluation.get("adaptation", ""), evaluation.get("adapt_steps", 0), evaluation["support"]),
        *(Figure(tuple(reach.after for reach in last)), Figure(tuple(reach.p10 for reach in last)), None),
    )
    return Group(_figure(before) if len(before) == len(last) else None, after)


def _way(
    people: Sequence[Sequence[Scores]], adaptation: str, steps: int, support: int, value: Callable[[Scores], float]
) -> Way:
    mean = Figure(tuple(_mean(scores, value) for scores in people))
    p10 = Figure(tuple(float(np.percentile([value(one) for one in scores], 10)) for scores in people))
    worse = None
    if all(one.before is not None for scores in people for one in scores):
        worse = Figure(tuple(float(np.mean([value(one) < (one.before or 0.0) for one in scores])) for scores in people))
    fewest = min(one.train for scores in people for one in scores)
    return Way(adaptation, steps, support, mean, p10, worse, fewest if fewest < support else None)


def _until(rows: Sequence[Row], group: str, target: float | None) -> Until | None:
    curves = [row.curve for row in rows if any(of(point, group) for point in row.curve)]
    if target is None or not curves:
        return None
    first = [
        next((point for point in curve if (reach := of(point, group)) and reach.after >= target), None)
        for curve in curves
    ]
    points = [point for point in first if point]
    if len(points) < len(curves):
        return Until(len(points))
    return Until(
        len(points),
        *(_figure(getattr(point, key) for point in points) for key in ("round", "gradients", "bytes", "seconds")),
    )


def _mean(scores: Sequence[Scores], value: Callable[[Scores], float]) -> float:
    return float(np.average([value(one) for one in scores], weights=[one.test for one in scores]))


def _figure(values: Iterable[float]) -> Figure | None:
    seeds = tuple(float(value) for value in values)
    return Figure(seeds) if seeds else None
