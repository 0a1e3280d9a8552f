"""A run, by itself, as one page: how far it came, what it scored, who was missing, with which settings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemeta.compare.rows import history_in
from edgemeta.config import to_toml
from edgemeta.fed.changes import changed, read_changes
from edgemeta.fed.curves import Curves
from edgemeta.fed.runs import config_of, run_of, shown_run
from edgemeta.page.chart import Curve, chart, key
from edgemeta.page.document import document, listing, table, text

CALLED = {"known": "participants that train", "new": "new participants"}
METRICS = ("accuracy", "loss")
WHEN = {"before": "as it is", "after": "adapted"}
SUMS = {"seconds": "s", "gradient_evaluations": "gradients", "bytes_down": "bytes down", "bytes_up": "bytes up"}
NOTED = {  # in a record: who
    "evaluation_missing": "did not score a model",
    "clipped": "sent an update that was scaled down",
    "left_out": "sent an update that was left out",
    "late": "delivered a round or more late",
}
EXPLAINED = (
    "Scores on the participants' own test pictures, mean by test samples; the band is from the 10th to the 90th "
    "percentile of participants. Adapted: after a few steps on a participant's own training pictures."
)


def run_page(folder: Path) -> str:
    """Return a run directory, or a site's newest run, as a page that needs nothing beside it; the run may be at work.

    Raises ConfigError where there is no run, and StorageError.
    """
    run = run_of(folder)
    one, config = shown_run(run), changed(config_of(run), read_changes(run))
    history = [record for record in history_in(run) if isinstance(record, dict)]
    curves = Curves(history)
    of = "" if one["last_round"] is None else f" of {one['last_round']}"
    title = f"Run {run.resolve().name}: round {one['round']}{of}, {one['state']}"
    chance = 1 / len(config.model.names) if config.model.names else None
    body = [f"<h1>{text(title)}</h1>", table(["", "algorithm", "rounds"], [_phase(phase) for phase in config.phases])]
    body += [table(["model", *SUMS.values()], [[one["model"], *(f"{_sum(history, name):,.0f}" for name in SUMS)]])]
    body += ["<h2>Scores</h2>", f'<p class="soft">{EXPLAINED}</p>', *_charts(curves, chance), *_tables(curves)]
    body += [*_noted(history)]
    if one["changes"]:
        body += ["<h2>Changed while it was at work</h2>", listing([f"{change}" for change in one["changes"]])]
    settings = f"<details><summary>run.toml</summary><pre>{_lines(to_toml(config))}</pre></details>"
    return document(title, [*body, "<h2>Settings</h2>", settings])


def _phase(phase: Any) -> list[str]:
    return [phase.name, phase.algorithm, str(phase.rounds or "until stopped")]


def _lines(of: str) -> str:
    return "\n".join(map(text, of.splitlines()))


def _sum(history: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(record[name]) for record in history if isinstance(record.get(name), int | float))


def _charts(curves: Curves, chance: float | None) -> list[str]:
    parts = []
    for metric in METRICS:
        for who, called in CALLED.items():
            found = [_curve(curves, who, when, metric) for when in WHEN]
            if any(curve.points for curve in found):
                level = _chance(curves, who, chance) if metric == "accuracy" else Curve("chance", [])
                parts.append(chart(f"{metric}, {called}", "rounds", [*found, level], shares=metric == "accuracy"))
    if curves.losses:
        points = [(float(number), loss, loss, loss) for number, loss in curves.losses]
        drawn = [Curve("", [])] * len(WHEN) + [Curve("", []), Curve("training loss", points)]
        parts.append(chart("loss in training", "rounds", drawn, shares=False))
    if not parts:
        return ["<p>No round is finished yet.</p>"]
    names = [*WHEN.values(), "chance", "training" if curves.losses else None]
    return [key(names), f'<div class="charts">{"".join(parts)}</div>']


def _curve(curves: Curves, who: str, when: str, metric: str) -> Curve:
    points = []
    for number, scores in curves.scores:
        if spread := (scores.get(who, {}).get(when) or {}).get(metric):
            points.append((float(number), *spread))
    return Curve(WHEN[when], points)


def _chance(curves: Curves, who: str, chance: float | None) -> Curve:
    levels = [(float(number), scores.get(who, {}).get("chance", chance)) for number, scores in curves.scores]
    return Curve("chance", [(x, level, level, level) for x, level in levels if level is not None])


def _score_table(curves: Curves, who: str) -> str:
    columns = [(when, metric) for metric in METRICS for when in WHEN if _curve(curves, who, when, metric).points]
    rows = []
    for number, scores in curves.scores:
        cells = [(scores.get(who, {}).get(when) or {}).get(metric) for when, metric in columns]
        rows.append([str(number), *(_cell(cell, metric) for cell, (_, metric) in zip(cells, columns, strict=True))])
    header = ["round", *(f"{metric} {WHEN[when]}" for when, metric in columns)]
    caption = f"{CALLED[who]}: mean, and in brackets the 10th and the 90th percentile"
    return table(header, rows, caption) if columns else ""


def _cell(spread: Sequence[float] | None, metric: str) -> str:
    if spread is None:
        return ""
    if metric == "accuracy":
        return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in spread))
    return "{:.4g} ({:.4g} to {:.4g})".format(*spread)


def _tables(curves: Curves) -> list[str]:
    found = [_score_table(curves, who) for who in CALLED]
    if curves.losses:
        rows = [[str(number), f"{loss:.4g}"] for number, loss in curves.losses]
        found.append(table(["round", "training loss"], rows))
    return ["<details><summary>The numbers behind the charts</summary>", *found, "</details>"] if any(found) else []


def _noted(history: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    for name, what in NOTED.items():
        counts = Counter(k for record in history for k in record.get(name, []))
        said += [f"Participant {k} {what}, in {count} rounds." for k, count in counts.most_common(20)]
    return ["<h2>To be known</h2>", listing(said)] if said else []
