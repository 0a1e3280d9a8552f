"""A comparison as rows of text, as JSON and as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edgemeta.compare.notes import Note, differing, steps_of, tuned_of
from edgemeta.compare.results import GROUPS, Figure, Group, Line, Task, Until, Way, of, totals
from edgemeta.compare.rows import FORMAT, Row
from edgemeta.page.document import NONE

Table = tuple[list[str], list[list[str]]]  # header, rows
CALLED = {"known": "participants", "new": "new ones"}
SHORT = {"known": "", "new": "new, "}
Item = TypeVar("Item", Way, Task)


def summary(lines: Sequence[Line], notes: Sequence[Note]) -> Table:
    """Return the table of final accuracies and budgets; a name is followed by the numbers of the notes about it."""
    groups = [group for group in GROUPS if any(line.groups[group].after for line in lines)]
    header = ["accuracy", "seeds"]
    for group in groups:
        header += [CALLED[group], *(SHORT[group] + what for what in ("adapted", "p10", "made worse"))]
    header += ["gradients", "MB", "seconds"]
    return header, [
        [
            name_of(line, notes),
            line.state,
            *(cell for group in groups for cell in _group_cells(line.groups[group])),
            *(count(line.gradients), count(line.bytes, 10**6), count(line.seconds)),
        ]
        for line in lines
    ]


def until(lines: Sequence[Line], group: str) -> Table:
    """Return the table of what it took to reach the target, by the configured adaptation."""
    rows = []
    for line in lines:
        if (found := line.groups[group].until) is None:
            continue
        rows.append([line.name, *_until_cells(found, len(line.whole))])
    return [f"until the target, {CALLED[group]}", "rounds", "gradients", "MB", "seconds"], rows


def adaptations(lines: Sequence[Line], group: str) -> dict[int, Table]:
    """Return for each number of labelled samples the table of final models, by the steps of every adaptation.

    A cell has the mean, and what share of the participants it made worse.
    """
    kinds, found = _by_adaptation(lines, lambda line: line.groups[group].ways, lambda way: (way.steps, way.support))
    tables = dict[int, Table]()
    for support in dict.fromkeys(support for _, support in kinds):
        columns = [kind for kind in kinds if kind[1] == support]
        rows = [
            [f"{line.name}, {name}", percent(line.groups[group].before), *(_cell(by.get(kind)) for kind in columns)]
            for line, name, by in found
            if any(kind in by for kind in columns)
        ]
        tables[support] = [CALLED[group], "as it is", *(steps_of(count) for count, _ in columns)], rows
    return tables


def episodes(lines: Sequence[Line], group: str) -> Table:
    """Return the table of few-shot episodes."""
    kinds, found = _by_adaptation(lines, lambda line: line.groups[group].tasks, lambda task: (task.ways, task.shots))
    rows = []
    for line, name, by in found:
        cells = [percent(by[kind].mean) if kind in by else NONE for kind in kinds]
        rows.append([f"{line.name}, {name}", *cells, str(min(task.participants for task in by.values()))])
    return [CALLED[group], *(f"{ways}-way {shots}-shot" for ways, shots in kinds), "counted"], rows


def _by_adaptation(
    lines: Sequence[Line], items: Callable[[Line], Sequence[Item]], kind: Callable[[Item], tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[tuple[Line, str, dict[tuple[int, int], Item]]]]:
    """Return what kinds of items there are, and of each line and adaptation, its items by kind."""
    kinds = dict.fromkeys(kind(item) for line in lines for item in items(line))
    found = [
        (line, name, {kind(item): item for item in items(line) if item.adaptation == name})
        for line in lines
        for name in dict.fromkeys(item.adaptation for item in items(line))
    ]
    return sorted(kinds, key=lambda kind: kind[::-1]), found


def name_of(line: Line, notes: Sequence[Note]) -> str:
    """Return a line's name, with the numbers of the notes about it."""
    about = [str(i) for i, note in enumerate(notes, 1) if line.name in note.names]
    return line.name + (f" [{', '.join(about)}]" if about else "")


def percent(figure: Figure | None) -> str:
    """Return a share in per cent: its mean, and how far the seeds lie apart."""
    if figure is None:
        return NONE
    spread = f" ({100 * figure.spread:.1f})" if len(figure.seeds) > 1 else ""
    return f"{100 * figure.mean:.1f}%{spread}"


def count(figure: Figure | None, scale: float = 1) -> str:
    """Return a number that is large: its mean over seeds."""
    if figure is None:
        return NONE
    mean = figure.mean / scale
    return f"{mean:,.0f}" if mean >= 10 else f"{mean:.2g}"


def to_json(
    lines: Sequence[Line], notes: Sequence[Note], targets: dict[str, float | None], seeds: int
) -> dict[str, Any]:
    """Return everything as one JSON object; a figure is its mean, spread (largest - smallest) and seeds."""
    return {
        "format": FORMAT,
        "seeds": seeds,
        "targets": targets,
        "notes": [note.text for note in notes],
        "runs": [
            {
                "name": line.name,
                "kind": str(line.rows[0].kind),
                "state": line.state,
                "tuned": tuned_of(line),
                "diverged": {str(row.seed): row.diverged for row in line.rows if row.diverged},
                "gradients": _figure(line.gradients),
                "bytes": _figure(line.bytes),
                "seconds": _figure(line.seconds),
                **{group: _group_json(line.groups[group]) for group in GROUPS if line.groups[group].after},
            }
            for line in lines
        ],
        "differing": {
            key: dict(zip([line.name for line in lines], v, strict=True)) for key, v in differing(lines).items()
        },
    }


def results_csv(lines: Sequence[Line]) -> str:
    """Return one record for each run, seed, kind of participants and adaptation."""
    header = ["run", "seed", "participants", "adaptation", "steps", "support", "accuracy", "p10", "made_worse"]
    records: list[list[Any]] = [[*header, "gradients", "bytes", "seconds", "diverged"]]
    for line in lines:
        for i, row in enumerate(line.whole):
            for group in GROUPS:
                records += [
                    [line.name, row.seed, group, *found, *totals(row), ""] for found in _records(line.groups[group], i)
                ]
        records += [[line.name, row.seed, *[""] * 7, *totals(row), row.diverged] for row in line.rows if row.diverged]
    return _csv(records)


def curves_csv(rows: Sequence[Row]) -> str:
    """Return one record for each run, seed, evaluated round and kind of participants."""
    records: list[list[Any]] = [
        ["run", "seed", "round", "gradients", "bytes", "seconds", "participants", "before", "after", "p10"]
    ]
    for row in rows:
        for point in row.curve:
            for group in GROUPS:
                if reach := of(point, group):
                    taken = [point.round, point.gradients, point.bytes, round(point.seconds, 3)]
                    before = "" if reach.before is None else reach.before
                    records.append([row.name, row.seed, *taken, group, before, reach.after, reach.p10])
    return _csv(records)


def _csv(records: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()


def _records(group: Group, seed: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    if group.before:
        found.append(["none", 0, "", group.before.seeds[seed], "", ""])
    for way in [group.after, *group.ways] if group.after else []:
        worse = "" if way.worse is None else way.worse.seeds[seed]
        found.append([way.adaptation, way.steps, way.support, way.mean.seeds[seed], way.p10.seeds[seed], worse])
    return found


def _group_cells(group: Group) -> list[str]:
    after = group.after
    if after is None:
        return [NONE] * 4
    return [percent(group.before), percent(after.mean), percent(after.p10), percent(after.worse)]


def _until_cells(found: Until, seeds: int) -> list[str]:
    if found.rounds is None:
        return [f"in {found.reached} of {seeds} seeds" if found.reached else "not reached", *[NONE] * 3]
    return [count(found.rounds), count(found.gradients), count(found.bytes, 10**6), count(found.seconds)]


def _cell(way: Way | None) -> str:
    if way is None:
        return NONE
    worse = f" ↓{100 * way.worse.mean:.0f}%" if way.worse and way.worse.mean else ""
    return percent(way.mean) + worse


def _group_json(group: Group) -> dict[str, Any]:
    assert group.after is not None
    return {
        "before": _figure(group.before),
        "after": _way(group.after),
        "ways": [_way(way) for way in group.ways],
        "episodes": [
            {key: getattr(task, key) for key in ("adaptation", "ways", "shots", "participants")}
            | {"mean": _figure(task.mean)}
            for task in group.tasks
        ],
        "until": group.until
        and {
            "reached": group.until.reached,
            **{key: _figure(getattr(group.until, key)) for key in ("rounds", "gradients", "bytes", "seconds")},
        },
    }


def _way(way: Way) -> dict[str, Any]:
    return {
        **{key: getattr(way, key) for key in ("adaptation", "steps", "support")},
        **{key: _figure(getattr(way, key)) for key in ("mean", "p10", "worse")},
    }


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    return figure and {"mean": figure.mean, "spread": figure.spread, "seeds": list(figure.seeds)}
