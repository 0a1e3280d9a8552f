"""`edgemeta bench`: how fast this machine is."""

import json

import click


@click.command()
@click.option("--model", default="cnn", show_default=True, metavar="NAME", help="cnn, cnn-small or mlp.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(model: str, batch: int, as_json: bool) -> None:
    """Measure a training step of a model on random pictures: time, memory, start-up."""
    from edgemeta.bench import measure

    facts = measure(model, batch)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key}: {value}")
