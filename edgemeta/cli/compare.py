"""`edgemeta compare`: runs side by side over several seeds, or one beside its baselines."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import click

from edgemeta.cli.settings import settings_from

COLUMNS = [(key, when) for key in ("evaluation", "evaluation_new") for when in ("before", "after")]
Summaries = Mapping[str, Mapping[str, Any]]


def _which(context: click.Context, option: click.Parameter, value: str) -> int | tuple[int, ...]:
    """Return how many seeds, from 1, or which: the seeds of a list, each once."""
    words = value.removesuffix(",").split(",")
    if not all(word.strip().isascii() and word.strip().isdecimal() and len(word) < 20 for word in words):
        raise click.BadParameter(f"'{value}': expected how many, such as 3, or which, such as 0,1,2", context, option)
    seeds = tuple(map(int, words))
    if len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"'{value}': expected a list that has each seed once", context, option)
    if value == "0":
        raise click.BadParameter("'0' is how many: expected 1 or more; the seed 0 alone is '0,'", context, option)
    return seeds if "," in value else seeds[0]


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN.toml|PRESET]...")
@click.option("--config", metavar="RUN.toml|PRESET", help="One run beside its baselines. [default: demo]")
@click.option("--data", metavar="SPEC", help="Where the data is: synthetic, or a path.")
@click.option(
    "--seeds",
    callback=_which,
    default="1",
    show_default=True,
    metavar="N|S,S",
    help="How many seeds, or which, as in 0,1,2.",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@click.option("--target", type=click.FloatRange(0, 1), metavar="F", help="Accuracy whose price is shown: 0.7, say.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where all is kept; one that exists goes on."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(
    runs: tuple[str, ...],
    config: str | None,
    data: str | None,
    seeds: int | tuple[int, ...],
    assignments: tuple[str, ...],
    jobs: int,
    target: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare runs side by side, into a page, tables and JSON below --out.

    A run behind 'fedavg:' is plain FedAvg, and behind 'alone:' everyone alone, on that run's budget of gradients. With
    --config, one run is compared with both; without --out, only in a table.
    """
    if runs and config:
        raise click.UsageError("give the runs, or --config for one run beside its baselines")
    if runs and out is None:
        raise click.UsageError("give --out DIR, where runs are kept, so that the comparison can go on")
    if target is not None and out is None:
        raise click.UsageError("--target is for comparisons with --out DIR")
    one = config or "demo"
    if out is None:
        _baselines(one, data, seeds, assignments, jobs, as_json)
        return
    from edgemeta.compare.entries import entries_from
    from edgemeta.compare.experiment import pairs, run_all, unfinished
    from edgemeta.compare.report import comparison_of, write_report
    from edgemeta.compare.tables import to_json
    from edgemeta.compare.work import Place, Shown

    entries = entries_from(runs or (one, f"fedavg:{one}", f"alone:{one}"), data, assignments)
    work = pairs(entries, lambda entry: _seeds(seeds, entry.config.seed))
    shown = Shown(_say, _hooks, _scored, lambda: write_report(out, comparison_of(out, work, target)))
    missing = unfinished(work, out)
    try:
        run_all(work, missing, Place(out, jobs, shown))
    finally:
        found = comparison_of(out, work, target)
        write_report(out, found)
    click.echo(json.dumps(to_json(found.lines, found.notes, found.targets, found.seeds)) if as_json else _text(found))
    if not as_json:
        click.echo(f"page: {out / 'index.html'}")


def _seeds(seeds: int | tuple[int, ...], first: int) -> tuple[int, ...]:
    return seeds if isinstance(seeds, tuple) else tuple(range(first, first + seeds))


def _say(text: str) -> None:
    click.echo(f"{text} ...", err=True)


def _scored(done: int, count: int) -> None:
    if sys.stderr.isatty():
        from edgemeta.cli.report import write_over

        write_over(f"scored {done} of {count} participants" + "\n" * (done == count))


def _hooks(last_round: int | None) -> Mapping[str, Any]:
    from edgemeta.cli.report import Progress

    progress = Progress(last_round)
    return {"on_round": progress.on_round, "on_participant": progress.on_participant}


def _text(found: Any) -> str:
    """Return a comparison's tables and notes for a terminal."""
    from edgemeta.cli.report import table
    from edgemeta.compare import tables

    parts = [table(*tables.summary(found.lines, found.notes))]
    parts += ["\n".join(f"[{i}] {note.text}" for i, note in enumerate(found.notes, 1))] if found.notes else []
    for group, target in found.targets.items():
        header, rows = tables.episodes(found.lines, group)
        if rows:
            parts.append(table(header, rows))
        header, rows = tables.until(found.lines, group)
        if rows and target is not None:
            parts.append(table([f"until {100 * target:g}% of {tables.CALLED[group]}, adapted", *header[1:]], rows))
    return "\n\n".join(parts)


def _baselines(
    config: str, data: str | None, seeds: int | tuple[int, ...], assignments: tuple[str, ...], jobs: int, as_json: bool
) -> None:
    """Show a run beside its baselines, and keep nothing."""
    from edgemeta import api
    from edgemeta.cli.report import bar
    from edgemeta.fed.plan import Plan

    settings, runs = settings_from(config, {"data.source": data}, assignments), []
    said: list[str] = []
    each = _seeds(seeds, settings.seed)
    for seed in each:
        with bar():
            prepared = api.prepare(replace(settings, seed=seed))
        for line in prepared.left_out.why:
            if line not in said:  # with most seeds it is the same
                click.echo(line, err=True)
                said.append(line)
        hooks = _hooks(Plan(prepared.config).last_round)
        run = api.start(prepared, jobs=jobs, **hooks).summary
        runs.append({api.name_of(prepared.config): run, **api.baselines(prepared, jobs, **hooks)})
    click.echo(json.dumps({"seeds": len(each), "runs": runs}) if as_json else comparison_table(runs))


def comparison_table(runs: Sequence[Summaries]) -> str:
    """Return a table of accuracies, and over several runs also how far they lie apart (largest - smallest)."""
    from edgemeta.cli.report import table

    rows = [[name, *(_cell([run[name] for run in runs], *column) for column in COLUMNS)] for name in runs[0]]
    return table(["accuracy", "participants", "adapted", "new ones", "adapted"], rows)


def _cell(summaries: Sequence[Mapping[str, Any]], key: str, when: str) -> str:
    if (
        key not in summaries[0]
        or summaries[0][key][when] is None
        or (when == "before" and "rounds" not in summaries[0])
    ):
        return "-"  # who learned alone has no shared model to adapt from, and an embedding has no classes before
    values = [100 * summary[key][when]["accuracy"]["mean"] for summary in summaries]
    spread = f" ({max(values) - min(values):.1f})" if len(values) > 1 else ""
    return f"{mean(values):.1f}%{spread}"
