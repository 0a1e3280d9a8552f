"""`edgemeta simulate`: a whole run in one process."""

from pathlib import Path
from typing import Any

import click

from edgemeta.cli import options
from edgemeta.cli.settings import settings_from


@click.command()
@click.option("--config", metavar="RUN.toml|PRESET", help="A configuration file, or the name of a built-in one.")
@click.option("--data", metavar="SPEC", help="Where the data is: synthetic, or a path.")
@click.option("--participants", type=int, metavar="N", help="Into how many parts the data is cut.")
@click.option("--partition", metavar="P", help="iid, dirichlet:ALPHA or shards:CLASSES_PER_PARTICIPANT.")
@click.option("--algorithm", metavar="A", help="A single phase of this learner, such as fomaml.")
@click.option("--rounds", type=int, metavar="R", help="A single phase of so many rounds.")
@click.option("--seed", type=int, metavar="S", help="Decides every random choice of the run.")
@click.option("--init", type=click.Path(path_type=Path), metavar="MODEL", help="Start from this model file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory; one that exists goes on.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@options.threads
def simulate(
    config: str | None,
    init: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    jobs: int,
    threads: int,
    **named: Any,
) -> None:
    """Run meta-training and federated rounds in this process."""
    places = {"data": "data.source", "participants": "data.participants", "partition": "data.partition"}
    settings = settings_from(config, {places.get(key, key): value for key, value in named.items()}, assignments)

    from edgemeta import api
    from edgemeta.cli.report import Progress, bar, spread_rows, table
    from edgemeta.fed.plan import Plan

    finished = out is not None and (out / "summary.json").exists()
    settings, network = api.own_network(settings, init, out and out / api.MODEL_FILE)
    if network:
        network.threads = threads
    with bar():
        prepared = api.prepare(settings, model=network, threads=threads)
    for line in prepared.left_out.why:
        click.echo(line, err=True)
    progress = Progress(Plan(prepared.config).last_round)
    result = api.start(prepared, out, init, jobs, on_round=progress.on_round, on_participant=progress.on_participant)
    if finished:
        click.echo(f"{out} holds this run, and it is finished", err=True)
    click.echo(table(["accuracy", "mean", "p10", "p50", "p90"], spread_rows(result.summary)))
    if out is not None:
        click.echo(f"model: {out / 'model.safetensors'}")
