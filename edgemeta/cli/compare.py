"""`edgemeta compare`: a configuration beside its baselines, over several seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import click

from edgemeta.cli.settings import settings_from

COLUMNS = [(key, when) for key in ("evaluation", "evaluation_new") for when in ("before", "after")]
Summaries = Mapping[str, Mapping[str, Any]]


@click.command()
@click.option("--config", default="demo", show_default=True, metavar="RUN.toml|PRESET", help="What is compared.")
@click.option("--data", metavar="SPEC", help="Where the data is: synthetic, or a path.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="How many runs.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(config: str, data: str | None, seeds: int, assignments: tuple[str, ...], jobs: int, as_json: bool) -> None:
    """Run a configuration beside FedAvg with the same adaptation, and everyone alone, on one budget of gradients."""
    from edgemeta import api
    from edgemeta.cli.report import Progress
    from edgemeta.fed.plan import Plan

    settings, runs = settings_from(config, {"data.source": data}, assignments), []
    said: list[str] = []
    for seed in range(settings.seed, settings.seed + seeds):
        prepared = api.prepare(replace(settings, seed=seed))
        for line in prepared.left_out.why:
            if line not in said:  # with most seeds it is the same
                click.echo(line, err=True)
                said.append(line)
        progress = Progress(Plan(prepared.config).last_round)
        hooks: dict[str, Any] = {"on_round": progress.on_round, "on_participant": progress.on_participant}
        run = api.start(prepared, jobs=jobs, **hooks).summary
        runs.append({api.name_of(prepared.config): run, **api.baselines(prepared, jobs, **hooks)})
    click.echo(json.dumps({"seeds": seeds, "runs": runs}) if as_json else comparison_table(runs))


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
