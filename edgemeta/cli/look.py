"""`edgemeta report`, `status` and `watch`: what a run has come to, on a page and in the terminal."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from edgemeta.names import shown

EVERY_S = 2.0  # between two looks
PLACE = click.argument("place", metavar="[URL|DIR]", default="edgemeta-state")
TOKEN = click.option(
    "--token",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with the operator's token, for another machine's gateway.",
)
TRUST = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The certificates (PEM) to trust a gateway by, for https://.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: DIR/report.html]")
def report(folder: Path, out: Path | None) -> None:
    """Make a page of a run, or of a site's newest one, that needs nothing beside it; the run may be at work."""
    from edgemeta.compare.single import run_page
    from edgemeta.storage import write_atomic

    page, out = run_page(folder), out or folder / "report.html"
    write_atomic(out, [page.encode()])
    click.echo(str(out))


@click.command()
@PLACE
@TOKEN
@TRUST
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(place: str, token: Path | None, trust: Path | None, as_json: bool) -> None:
    """Say once how far a run is: of a gateway at URL, or as the files of a run or a site have it."""
    said = _looker(place, token, trust)()
    if as_json:
        click.echo(json.dumps(said))
        return
    for line in [*_summary(said), *map(_device, said.get("devices", []))]:
        click.echo(shown(line))


@click.command()
@PLACE
@TOKEN
@TRUST
def watch(place: str, token: Path | None, trust: Path | None) -> None:
    """Say again and again what is new of a run, until it is over."""
    from edgemeta.device.calls import Away

    look, before = _looker(place, token, trust), list[str]()
    while True:
        try:
            said = look()
            lines, over = _summary(said), said.get("state", said.get("stage")) in ("over", "stopped")
        except Away as error:
            lines, over = [str(error)], False
        for line in lines:
            if line not in before:
                click.echo(shown(line))
        if over:
            return
        before = lines
        time.sleep(EVERY_S)


def _looker(place: str, token: Path | None, trust: Path | None) -> Callable[[], dict[str, Any]]:
    """Return what looks at a place."""
    if "://" not in place:
        return lambda: _kept(Path(place))
    from edgemeta.device.calls import Away, Gateway
    from edgemeta.errors import ConfigError
    from edgemeta.link.address import gateway_address, with_port

    if gateway_address(place).encrypted and trust is None:
        raise ConfigError(f"{place} takes --trust FILE: the gateway's tls/ca.pem, by which it is known to be that one")
    gateway = Gateway(with_port(place), "" if trust is None else _text(trust))
    session = "" if token is None else _text(token).split()[-1:]

    def look() -> dict[str, Any]:
        try:
            answer = gateway.call("GET", "/status.json", session="".join(session))
        except Away as error:
            raise Away(f"{place} does not answer: {error}") from error
        finally:
            gateway.close()
        if answer.status != 200:
            raise ConfigError(f"{place} refuses: {': '.join(answer.refusal or ('it is no gateway',))}")
        return answer.json()

    return look


def _text(path: Path) -> str:
    from edgemeta.errors import ConfigError
    from edgemeta.reading import read_file

    text = read_file(path)
    if text is None:
        raise ConfigError(f"there is no file {path}")
    return text.decode(errors="replace")


def _kept(folder: Path) -> dict[str, Any]:
    """Return what the files of a run, or of a site's newest one, say."""
    from edgemeta.compare.rows import history_in
    from edgemeta.fed.curves import Curves
    from edgemeta.fed.runs import run_of, shown_run

    run = run_of(folder)
    return {**shown_run(run), "curves": Curves(history_in(run)).to_json()}


def _summary(said: Mapping[str, Any]) -> list[str]:
    """Return where a run is and what it scored last, without what changes with time alone."""
    number = said["round"] - (said.get("stage") == "over")  # a gateway names the one that would come next
    of = "" if said["last_round"] is None else f" of {said['last_round']}"
    where = f"run {said['run']}: {said.get('state') or said['stage']}, round {number}{of}"
    asked, curves = len(said.get("cohort", [])), said["curves"]
    if asked:
        where += f", {said['delivered']} of {asked} devices have delivered"
    elif said.get("stage", "over") != "over":
        where = f"run {said['run']}: {said['waiting_for']}"
    lines = [where]
    if curves["losses"]:
        lines.append(f"round {curves['losses'][-1][0]}: loss {curves['losses'][-1][1]:.4g}")
    for score in curves["scores"][-1:]:
        for who, label in (("known", "accuracy"), ("new", "new ones")):
            means = [scores["accuracy"][0] for scores in _both(score.get(who)) if "accuracy" in scores]
            if means:
                lines.append(f"round {score['round']}: {label} " + " -> ".join(f"{100 * mean:.1f}%" for mean in means))
    return lines


def _both(scores: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [scores[when] for when in ("before", "after") if scores[when]] if scores else []


def _device(one: Mapping[str, Any]) -> str:
    from edgemeta.cli.report import duration

    heard = "not heard yet" if one["heard_s"] is None else f"heard {duration(one['heard_s'])} ago"
    refused = sum(one["refusals"].values())
    line = f"{one['name']:24} participant {one['participant']:<5} {one['doing']:10} {heard:20}"
    return f"{line} counted in round {one['counted']}" + (f", {refused} refusals" if refused else "")
