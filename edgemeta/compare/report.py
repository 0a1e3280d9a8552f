"""What a comparison leaves for people and programs: results.json, results.csv, curves.csv and index.html.

They are made anew after every run, from all that is there by then; what is missing is said.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemeta.api import name_of as algorithms
from edgemeta.compare import tables
from edgemeta.compare.entries import Entry
from edgemeta.compare.notes import Note, adapted_by, differing, notes_of, tuned_of
from edgemeta.compare.results import GROUPS, Line, lines_of, of, targets_of
from edgemeta.compare.rows import Point, Row, curve_of, history_in, kept, row_path
from edgemeta.config import RunConfig, config_from, to_dict
from edgemeta.page.chart import Curve, chart, key
from edgemeta.page.document import document, listing, table, text
from edgemeta.storage import write_atomic

ACROSS = {"round": "rounds", "gradients": "gradients", "bytes": "bytes"}
EXPLAINED = (
    "Accuracy on the participants' own test pictures, mean by test samples; over seeds the mean, and in brackets the "
    "largest minus the smallest. p10: a tenth of the participants is at or below it. Made worse: the share of "
    "participants whose accuracy fell by adaptation, which sees training pictures only. Gradients: on training "
    "participants, in training; MB: message bodies both ways; all of whole runs."
)


@dataclass(frozen=True)
class Comparison:
    """What is there of a comparison. seeds: how many were asked for; targets: by kind of participants."""

    lines: list[Line]
    notes: list[Note]
    targets: dict[str, float | None]
    seeds: int


def comparison_of(out: Path, work: Sequence[tuple[Entry, int]], target: float | None) -> Comparison:
    """Return what is there by now of what was asked for; runs that are at work, or were cut off, as far as they are."""
    rows = [kept(row_path(out, entry.name, seed), Row) or _unfinished(out, entry, seed) for entry, seed in work]
    targets, seeds = targets_of(rows, target), len({seed for _, seed in work})
    lines = lines_of(rows, targets, max(seeds, 1))
    return Comparison(lines, notes_of(lines), targets, seeds)


def write_report(out: Path, found: Comparison) -> None:
    """Write all files of a comparison; raises StorageError."""
    rows = [row for line in found.lines for row in line.rows]
    facts = tables.to_json(found.lines, found.notes, found.targets, found.seeds)
    files = {
        "results.json": json.dumps(facts, indent=1, allow_nan=False) + "\n",
        "results.csv": tables.results_csv(found.lines),
        "curves.csv": tables.curves_csv(rows),
        "index.html": page(found),
    }
    for name, content in files.items():
        write_atomic(out / name, [content.encode()])


def page(found: Comparison) -> str:
    """Return a comparison as one page that needs nothing beside it."""
    lines, notes = found.lines, found.notes
    body = [f"<h1>{text(_title(lines))}</h1>", f'<p class="soft">{EXPLAINED}</p>', table(*tables.summary(lines, notes))]
    body += ["<h2>To be known before comparing</h2>"]
    numbered = "".join(f"<li>{text(note.text)}</li>" for note in notes)
    body += [f"<ol>{numbered}</ol>" if notes else "<p>Data, seeds and budgets are the same for all.</p>"]
    body += ["<h2>What was tuned on what</h2>", listing([f"{line.name}: {tuned_of(line)}." for line in lines])]
    body += [_curves(lines)]
    for group in GROUPS:
        body += _group_tables(found, group)
    body += ["<h2>What was run</h2>", table(["", "algorithm", "model", "adaptation"], [_about(line) for line in lines])]
    if differ := differing(lines):
        rows = [[name, *values] for name, values in differ.items()]
        body += [table(["settings that differ", *(line.name for line in lines)], rows)]
    unused = list(dict.fromkeys(sentence for line in lines for row in line.rows for sentence in row.unused))
    return document(_title(lines), [*body, *(["<h2>Data that is not used</h2>", listing(unused)] if unused else [])])


def _unfinished(out: Path, entry: Entry, seed: int) -> Row:
    curve = curve_of(history_in(out / "runs" / f"{entry.name}-seed-{seed}"))
    rounds = sum(phase.rounds for phase in entry.config.phases)
    return Row(entry.name, entry.kind, seed, {}, to_dict(entry.config), curve=curve, rounds=rounds)


def _title(lines: Sequence[Line]) -> str:
    return "Compared: " + ", ".join(line.name for line in lines)


def _curves(lines: Sequence[Line]) -> str:
    charts = []
    for group in GROUPS:
        for across, unit in ACROSS.items():
            curves = [Curve(line.name, _points(line.shown, group, across)) for line in lines]
            if any(curve.points for curve in curves):
                charts.append(chart(f"{tables.CALLED[group]}, adapted, over {unit}", unit, curves))
    if not charts:
        return ""
    told = "Adapted as each run says; the band is from the lowest seed to the highest."
    return f'<h2>Curves</h2><p class="soft">{told}</p>{key([_called(line) for line in lines])}<div class="charts">' + (
        "".join(charts) + "</div>"
    )


def _called(line: Line) -> str | None:
    """Return what a line's curve is called; None where it has none."""
    ended = "" if line.whole or line.rows[0].at_work else " (diverged)"
    return line.name + ended if any(row.curve for row in line.shown) else None


def _points(rows: Sequence[Row], group: str, across: str) -> list[tuple[float, float, float, float]]:
    """Return a curve over the evaluated rounds that all rows have: the mean over them, the lowest and the highest."""
    by_round: dict[int, list[Point]] = {}
    for row in rows:
        for point in row.curve:
            by_round.setdefault(point.round, []).append(point)
    found = []
    for _, points in sorted(by_round.items()):
        values = [reach.after for point in points if (reach := of(point, group))]
        if values and len(values) == len(rows):
            x = sum(getattr(point, across) for point in points) / len(points)
            found.append((x, sum(values) / len(values), min(values), max(values)))
    return found


def _group_tables(found: Comparison, group: str) -> list[str]:
    target, parts = found.targets[group], list[str]()
    if adapted := tables.adaptations(found.lines, group):
        parts += [f"<h2>Final models, adapted: {tables.CALLED[group]}</h2>"]
        parts += ['<p class="soft">Behind ↓: the share of participants made worse.</p>']
    for support, of_support in adapted.items():
        parts += [table(*of_support, f"With {support} training samples of their own")]
    header, rows = tables.episodes(found.lines, group)
    if rows:
        caption = "Chance is one in so many ways. Counted: participants that have classes enough."
        parts += [f"<h2>Few-shot episodes: {tables.CALLED[group]}</h2>", table(header, rows, caption)]
    header, rows = tables.until(found.lines, group)
    if rows and target is not None:
        caption = f"Target: {100 * target:g} %, mean of {tables.CALLED[group]}, adapted as each run says."
        parts += [f"<h2>Until a target: {tables.CALLED[group]}</h2>", table(header, rows, caption)]
    return parts


def _about(line: Line) -> list[str]:
    config: RunConfig = config_from(line.rows[0].config)
    return [line.name, algorithms(config), config.model.name, adapted_by(line)]
