"""`edgemeta data`: what is in a data set."""

import json

import click


@click.group()
def data() -> None:
    """Look at data."""


@data.command()
@click.argument("spec")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(spec: str, as_json: bool) -> None:
    """Say what SPEC holds: its kind, shape, classes and how many samples of each, and what there is not used."""
    from edgemeta.cli.report import bar, table
    from edgemeta.data import describe, open_data
    from edgemeta.names import listed

    with bar():
        split = open_data(spec)
    facts = describe(split)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    counts = facts.pop("classes")
    if "participants" in facts:
        facts["participants"] = listed(facts["participants"])
    facts["unused"] = ", ".join(map(str, split.unused)) or "nothing"
    for key, value in facts.items():
        click.echo(f"{key}: {' x '.join(map(str, value)) if isinstance(value, list) else value}")
    rows = [[name, str(of["train"]), str(of["test"])] for name, of in counts.items()]
    click.echo(table(["class", "train", "test"], rows))
