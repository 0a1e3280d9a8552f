"""`edgemeta client`: a device."""

from contextlib import nullcontext
from pathlib import Path

import click

from edgemeta.cli import options
from edgemeta.cli.teach import PORT, opened

PAGE_HOLD_S = 1.0  # for which the gateway may hold back its answer: who teaches the device waits for its turn
WHICH = "give the gateway as --server URL, or a join file as --join FILE"


@click.command()
@click.option(
    "--server",
    metavar="URL",
    help="The gateway, as in http://gateway.local:8742 [default: the one that it had, or the one on this network]",
)
@click.option(
    "--join",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The join file that 'edgemeta enroll' made for this device, instead of --server.",
)
@click.option(
    "--data",
    metavar="SPEC",
    help="This device's data. [default: synthetic, where the classes are the run's]",
)
@click.option(
    "--partition-id", type=click.IntRange(0), metavar="K", help="Take the K-th part of the data, as the run cuts it."
)
@options.state("Where the device keeps what it needs to go on after a power cut.")
@click.option("--name", metavar="NAME", help="What the gateway calls this device. [default: the host's name]")
@click.option(
    "--profile", type=click.Path(path_type=Path), metavar="FILE", help="The board's limits: devices/ has some to take."
)
@click.option(
    "--page", type=click.IntRange(0, 65535), is_flag=False, flag_value=PORT, metavar="[P]", help="Open its page, too."
)
@click.option(
    "--page-host", default="127.0.0.1", show_default=True, metavar="H", help="The address that its page is at."
)
@click.option("--once", is_flag=True, help="Do what one round asks for, its training and its evaluation, and exit.")
@click.option(
    "--for", "seconds", type=click.FloatRange(0.1), metavar="SECONDS", help="Give up after so long, with status 1."
)
@options.log
def client(
    server: str | None,
    join: Path | None,
    data: str | None,
    partition_id: int | None,
    state: Path,
    name: str | None,
    profile: Path | None,
    page: int | None,
    page_host: str,
    once: bool,
    seconds: float | None,
    log_level: str,
    log_json: bool,
) -> None:
    """Take part in a gateway's run as a device, until the run is over; a gateway that is away is waited for.

    Without --server and --join it is the gateway that STATE had, or the one that answers on this network.
    """
    if server is not None and join is not None:
        raise click.UsageError(f"{WHICH}, and not both")
    from edgemeta.device.device import Device
    from edgemeta.device.profile import Profile, be_nice, read_profile
    from edgemeta.device.service import take_part
    from edgemeta.device.state import gateway_of
    from edgemeta.logs import ForPeople, ForPrograms, json_line, log_to_stderr

    log_to_stderr(ForPrograms(json_line) if log_json else ForPeople(), log_level)
    if server is None and join is None:
        server = gateway_of(state) or found_gateway()
    limits = read_profile(profile) if profile else Profile()
    be_nice(limits.nice)
    with (
        Device(server, data, state, name, partition_id, join=join, profile=profile) as device,
        nullcontext() if page is None else opened(device, state, page_host, page),
    ):
        begun = {"place": device.place, "state": state, "data": data}
        hold_s = limits.hold_s if page is None else min(limits.hold_s, PAGE_HOLD_S)
        take_part(device, begun, hold_s=hold_s, once=once, seconds=seconds)


def found_gateway() -> str:
    """Return the URL of the one gateway on this network; raises ConfigError where there is none, or a choice."""
    from edgemeta.errors import ConfigError
    from edgemeta.link.multicast import find

    click.echo("looking for a gateway on this network", err=True)
    found = find()
    for one in found:
        click.echo(f"{one.name}  {one.url}", err=len(found) == 1)
    if not found:
        raise ConfigError(f"no gateway answers on this network: {WHICH}")
    if len(found) > 1:
        raise ConfigError(f"{len(found)} gateways answer on this network: {WHICH}")
    return found[0].url
