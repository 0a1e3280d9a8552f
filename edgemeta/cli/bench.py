"""`edgemeta bench`: how fast this machine is."""

import json

import click

from edgemeta.cli import options


@click.command()
@click.option("--model", default="cnn", show_default=True, metavar="NAME", help="cnn, cnn-small, conv4 or mlp.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Pictures.")
@options.threads
@click.option(
    "--against", type=click.Choice(["torch"]), help="Compare with PyTorch, over a fixed list of work, in some minutes."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(model: str, batch: int, threads: int, against: str | None, as_json: bool) -> None:
    """Measure a training step of a model on random pictures: time, memory, start-up."""
    if against:
        from edgemeta.bench.against import against_torch, table

        compared = against_torch(lambda title: click.echo(f"measuring: {title}", err=True))
        click.echo(json.dumps(compared) if as_json else table(compared))
        return

    from edgemeta.bench.machine import measure

    facts = measure(model, batch, threads)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key}: {value}")
