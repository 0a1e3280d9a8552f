"""`edgemeta tls`, `enroll`, `devices`, `revoke`, `operator-token`: who may take part, and whom devices trust."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemeta.cli import options
from edgemeta.folders import check_site, is_new

if TYPE_CHECKING:
    from edgemeta.gateway.enrolment import Joining

STATE = options.state("The gateway's run directory; it may be running.")


URL = click.option("--url", metavar="URL", help="Where the device finds the gateway. [default: as in its certificate]")
TRUST = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A certificate (PEM) for the device to trust, where the gateway has one that 'edgemeta tls' did not make.",
)


@click.command()
@click.argument("name")
@URL
@TRUST
@click.option(
    "--partition-id", type=click.IntRange(0), metavar="K", help="Keep this participant number for it, and from others."
)
@click.option("--qr", is_flag=True, help="Show the file as a QR code, too: its text is the file's.")
@STATE
def enroll(name: str, url: str | None, trust: Path | None, partition_id: int | None, qr: bool, state: Path) -> None:
    """Let a device take part: write NAME.join, to be copied to it. Again: a new token, the old one until it is used."""
    from edgemeta.cli.qr import show_qr
    from edgemeta.gateway.enrolment import enroll_device
    from edgemeta.reading import read_file

    _make_site(state)
    made = enroll_device(state, name, url, trust, Path(), time.time(), partition_id)
    _say(name, made)
    if qr:
        show_qr((read_file(made.path) or b"").decode())


def _say(name: str, made: "Joining") -> None:
    """Say what is to be done with a join file."""
    click.echo(f"{made.path}: copy it to the device, as 'edgemeta client --join {made.path}', and remove it here")
    if made.rotated:
        click.echo(f"its earlier token stays good until '{name}' has joined with this one", err=True)
    if made.overheard:
        click.echo(f"Warning: {made.url} is not encrypted, so who listens on the way gets this token too", err=True)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@STATE
@click.pass_context
def devices(context: click.Context, as_json: bool, state: Path) -> None:
    """List the site's devices, enrolled or joined: name, when enrolled, participant, runs taken part in."""
    if context.invoked_subcommand is not None:
        return
    import json
    from dataclasses import asdict

    from edgemeta.gateway.enrolment import list_devices, offered_of
    from edgemeta.gateway.renewal import ending
    from edgemeta.gateway.status import certificate_of
    from edgemeta.link.trust import SHORT_DAYS

    check_site(state)
    listed, offered, now = list_devices(state), offered_of(state), time.time()
    if as_json:
        shown = {"devices": [asdict(device) for device in listed], "certificate": certificate_of(offered, now)}
        click.echo(json.dumps(shown))
        return
    for device in listed:
        when = "joined without a token"
        if device.enrolled is not None:
            when = _moment(device.enrolled)
        kept = "not joined yet" if device.kept is None else f"{device.kept} is kept"
        taken = f"{device.runs} run{'s' * (device.runs != 1)}"
        seen = "" if device.seen is None else f"seen {_moment(device.seen)}"
        number = kept if device.participant is None else f"participant {device.participant}"
        click.echo(f"{device.name:24} {when:22}  {number:15}  {taken:8} {seen:27} {device.standing}".rstrip())
    if offered:
        days = offered.days_left(now)
        good = f"the gateway's certificate is good for {days} days, for {', '.join(offered.names)}"
        click.echo(good if days >= SHORT_DAYS else ending(days), err=True)
    if not listed:
        click.echo("no device is enrolled: 'edgemeta enroll NAME' enrolls one", err=True)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


@devices.command()
@click.argument("name")
@STATE
def hold(name: str, state: Path) -> None:
    """Ask a device for nothing more, until it is released; its session stays."""
    from edgemeta.gateway.enrolment import order_gateway
    from edgemeta.gateway.tokens import HOLD

    check_site(state)
    order_gateway(state, name, HOLD)
    click.echo(f"'{name}' is held: a running gateway asks it no more from now on, another one from its next start")


@devices.command()
@click.argument("name")
@STATE
def release(name: str, state: Path) -> None:
    """Let a device take part again that was held, by hand or since its updates did not count."""
    from edgemeta.gateway.enrolment import order_gateway
    from edgemeta.gateway.tokens import RELEASE

    check_site(state)
    order_gateway(state, name, RELEASE)
    click.echo(f"'{name}' is released: it is asked again in the next round")


@devices.command()
@click.argument("name")
@STATE
def remove(name: str, state: Path) -> None:
    """Have the run go on without a device that is gone for good: its place is free, and it is shut out."""
    from edgemeta.gateway.enrolment import remove_device

    check_site(state)
    remove_device(state, name)
    click.echo(f"'{name}' is removed: a gateway at work goes on without it, another one from its next start")


@devices.command()
@click.argument("name", metavar="OLD")
@click.argument("new", metavar="NEW")
@URL
@TRUST
@STATE
def replace(name: str, new: str, url: str | None, trust: Path | None, state: Path) -> None:
    """Have a board, NEW, take the place of another one, OLD; both may have the same name."""
    from edgemeta.gateway.enrolment import replace_device

    check_site(state)
    made = replace_device(state, name, new, url, trust, Path(), time.time())
    click.echo(f"'{new}' has the place of '{name}' from its first join on")
    if made:
        _say(new, made)


@click.command()
@click.argument("name")
@STATE
def revoke(name: str, state: Path) -> None:
    """Shut a device out, from its next request on: its tokens and its session."""
    from edgemeta.gateway.tokens import DEVICES_FILE
    from edgemeta.gateway.tokens import revoke as revoke_tokens

    check_site(state)
    had = revoke_tokens(state / DEVICES_FILE, name)
    click.echo(f"'{name}' is shut out" if had else f"'{name}' was shut out before")


@click.command()
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME|IP", help="Another one by which devices find it; may be repeated."
)
@click.option(
    "--remove", "removed", multiple=True, metavar="NAME|IP", help="One that it is no longer found by; may be repeated."
)
@STATE
def tls(hosts: tuple[str, ...], removed: tuple[str, ...], state: Path) -> None:
    """Make the gateway's certificate (by the openssl program); again: renew it, for the names that it has and --host.

    No join file changes, and a gateway at work takes it up.
    """
    from edgemeta.gateway.certificates import hosts_of, make_certificates
    from edgemeta.gateway.enrolment import TLS, names_of

    _make_site(state)
    named = hosts_of(names_of(state, None, None), hosts, removed)
    new = make_certificates(state / TLS, named, time.time())
    click.echo(f"{state / TLS / 'gateway.pem'}: for {', '.join(named)}; a gateway at work takes it up within seconds")
    if new:
        click.echo(f"{state / TLS / 'ca.pem'}: what devices trust; join files made before this have no trust in it")


@click.command()
@STATE
def operator_token(state: Path) -> None:
    """Make the token that opens the status pages from other machines, and print it this once."""
    from edgemeta.gateway.enrolment import make_operator_token

    _make_site(state)
    click.echo(make_operator_token(state))
    click.echo("keep it; an earlier one is good no longer. It is sent as 'Authorization: Bearer TOKEN'", err=True)


def _make_site(state: Path) -> None:
    """Say that a site is made of a folder which is not there, or empty; raises ConfigError for another one's."""
    if is_new(state):
        click.echo(f"{state.absolute()} is the site of a gateway from now on", err=True)
