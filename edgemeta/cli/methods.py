"""`edgemeta methods`: the learners, and what each costs and keeps."""

import json

import click


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def methods(name: str | None, as_json: bool) -> None:
    """List the learners, or say of one what travels, what stays, what it costs, and its settings."""
    from edgemeta.meta.learners import LEARNERS
    from edgemeta.meta.methods import described, text_of

    if as_json:
        click.echo(json.dumps(described(name) if name else {each: described(each) for each in LEARNERS}))
        return
    if name:
        click.echo(text_of(name))
        return
    width = max(map(len, LEARNERS))
    for each in LEARNERS:
        click.echo(f"{each:{width}}  {described(each)['sentence']}")
