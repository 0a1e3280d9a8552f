"""`edgemeta run`: the runs of a site, one after the other; a gateway at work takes up what is asked for here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgemeta.cli import options
from edgemeta.cli.settings import settings_from
from edgemeta.folders import check_site

if TYPE_CHECKING:
    from edgemeta.config import RunConfig
    from edgemeta.data.fingerprint import Fingerprint
    from edgemeta.nn import Model

STATE = options.state("The gateway's site; it may be running.")
LATEST = "latest"


@click.group()
def run() -> None:
    """The runs of a site: begin the next one, change the one at work, look at all of them."""


@run.command()
@click.option("--config", required=True, metavar="RUN.toml|PRESET", help="A configuration file, or a preset's name.")
@click.option("--from", "start", metavar="latest|MODEL", help="Start from the site's newest model, or from this one.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
@STATE
def new(config: str, start: str | None, assignments: tuple[str, ...], state: Path) -> None:
    """Begin another run, for the devices that the site has; the one before must be over ('edgemeta run stop')."""
    from edgemeta import api
    from edgemeta.gateway.site import begin_run

    check_site(state)
    init = state / api.MODEL_FILE if start == LATEST else Path(start) if start else None
    asked, network, data = resolved(settings_from(config, {}, assignments), init)
    made = begin_run(state, asked, network, api.initial(network, asked.seed, init, asked.model.names), data)
    click.echo(f"{made}: a gateway at work goes on with it now, another one from its next start")


@run.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@STATE
def list_(as_json: bool, state: Path) -> None:
    """List the runs, oldest first: where each is, and what it is."""
    from edgemeta.fed.runs import runs, shown_run

    check_site(state)
    listed = [shown_run(run) for run in runs(state)]
    if as_json:
        click.echo(json.dumps({"runs": listed}))
        return
    for one in listed:
        click.echo(f"{one['run']}  {_where(one):28} {one['model']}, {', then '.join(one['algorithms'])}")
    if not listed:
        click.echo("there is no run yet: 'edgemeta server' begins one, and 'edgemeta run new' does", err=True)


@run.command()
@click.argument("number", type=click.IntRange(1), required=False, metavar="[NUMBER]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@STATE
def show(number: int | None, as_json: bool, state: Path) -> None:
    """Show a run, the newest one unless a NUMBER is given: where it is, its settings, what was changed meanwhile."""
    from edgemeta.config import to_dict, to_toml
    from edgemeta.fed.changes import changed, read_changes
    from edgemeta.fed.runs import config_of, shown_run

    path = newest(state, number)
    one, config = shown_run(path), changed(config_of(path), read_changes(path))
    if as_json:
        click.echo(json.dumps({**one, "settings": to_dict(config)}))
        return
    click.echo(f"# run {one['run']}: {_where(one)}")
    for change in one["changes"]:
        click.echo(f"# changed: {change}")
    click.echo(to_toml(config), nl=False)


@run.command()
@STATE
def stop(state: Path) -> None:
    """End the run at work as it is: what its open round has collected is dropped, its last model stays."""
    from edgemeta.fed.changes import Change
    from edgemeta.fed.runs import is_over

    path = newest(state)
    if is_over(path):
        click.echo(f"run {path.name} is over")
        return
    _ask(path, Change(stop=True))
    click.echo(f"run {path.name} is stopped: 'edgemeta run extend --rounds N --state {state}' takes that back")


@run.command()
@click.option("--rounds", type=click.IntRange(1), required=True, metavar="N", help="So many more, in the last phase.")
@STATE
def extend(rounds: int, state: Path) -> None:
    """Have the newest run go on for more rounds than were planned, also when it is over or was stopped."""
    from edgemeta.errors import ConfigError
    from edgemeta.fed.changes import Change
    from edgemeta.fed.plan import Plan
    from edgemeta.fed.runs import config_of

    path = newest(state)
    if not config_of(path).phases[-1].rounds:
        raise ConfigError(f"run {path.name} has no last round: it goes on until 'edgemeta run stop --state {state}'")
    last = Plan(_ask(path, Change(rounds=rounds))).last_round
    click.echo(f"run {path.name}: its last round is {last}")


@run.command("set")
@click.argument("assignments", nargs=-1, required=True, metavar="KEY=VALUE...")
@STATE
def set_(assignments: tuple[str, ...], state: Path) -> None:
    """Change settings of the newest run while it is at work; its history says from which round on they hold."""
    from edgemeta.fed.changes import Change, settings_of

    path = newest(state)
    _ask(path, Change(settings_of(assignments)))
    click.echo(f"run {path.name}: {', '.join(assignments)}; a gateway at work acts on it within a second")


def resolved(
    settings: "RunConfig", init: Path | None, own_model: Path | None = None
) -> "tuple[RunConfig, Model, Fingerprint | None]":
    """Return settings with what follows from the data, the network, and what was seen of the data if it was opened.

    init, own_model: files that have the network where the settings name none; the latter is the run's, if it is there.
    """
    from edgemeta import api
    from edgemeta.data.fingerprint import fingerprint

    asked, own = api.own_network(settings, init, own_model)
    opened = api.gateway_data(asked)
    config, network = api.prepare_gateway(asked, opened, own)
    return config, network, opened and fingerprint(opened)


def given(config: str | None, assignments: tuple[str, ...]) -> str:
    """Return the options that say settings, as they were given."""
    import shlex

    settings = [f"--set {shlex.quote(text)}" for text in assignments]
    return " ".join([f"--config {shlex.quote(config or 'RUN.toml')}", *settings])


def newest(site: Path, number: int | None = None) -> Path:
    """Return a site's newest run, or the one of a number; raises ConfigError where there is none."""
    from edgemeta.errors import ConfigError
    from edgemeta.fed.runs import runs

    check_site(site)
    there = runs(site)
    found = [run for run in there if number is None or int(run.name) == number]
    if not found:
        which = "yet" if number is None else f"{number} (there are {', '.join(run.name for run in there) or 'none'})"
        raise ConfigError(f"{site} has no run {which}: 'edgemeta run new --config RUN.toml --state {site}' begins one")
    return found[-1]


def _ask(path: Path, change: Any) -> "RunConfig":
    """Ask for a change of a run; what it leads to is checked first."""
    from edgemeta.fed.changes import ask
    from edgemeta.fed.runs import config_of

    return ask(path, config_of(path), change)


def _where(one: dict[str, Any]) -> str:
    last = "" if one["last_round"] is None else f" of {one['last_round']}"
    return f"{one['state']}, round {one['round']}{last}"
