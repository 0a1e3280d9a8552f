"""`edgemeta client`: a device."""

import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import click

from edgemeta.cli import options
from edgemeta.cli.teach import PORT, opened

BUDGET_S = 1.0  # of local steps between two looks at whether to stop
PAGE_HOLD_S = 1.0  # for which the gateway may hold back its answer: who teaches the device waits for its turn
QUIET = ("waiting", "task")
ALWAYS = ("joined", "delivered", "discarded", "over")
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
    import logging

    from edgemeta.device.device import Device
    from edgemeta.device.profile import Profile, be_nice, read_profile
    from edgemeta.device.state import gateway_of
    from edgemeta.errors import EdgemetaError
    from edgemeta.link.notify import beating, notify
    from edgemeta.logs import ForPeople, ForPrograms, Seldom, json_line, log_to_stderr

    log_to_stderr(ForPrograms(json_line) if log_json else ForPeople(), log_level)
    log = logging.getLogger("edgemeta")
    if server is None and join is None:
        server = gateway_of(state) or found_gateway()
    limits = read_profile(profile) if profile else Profile()
    be_nice(limits.nice)
    said, last, signals = Seldom(), "", list[int]()
    with (
        Device(server, data, state, name, partition_id, join=join, profile=profile) as device,
        nullcontext() if page is None else opened(device, state, page_host, page),
    ):
        hold_s = limits.hold_s if page is None else min(limits.hold_s, PAGE_HOLD_S)

        def stop(number: int) -> None:
            if number == signal.SIGALRM:
                raise EdgemetaError(f"gave up after {seconds:g} s; what was done is kept. At last: {text}")
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(0)  # a clean stop; what was done is kept on the way out

        def on_signal(number: int, _frame: object) -> None:
            signals.append(number)
            if len(signals) > 1 or not device.training:  # else when the local step has ended, so that it is kept
                stop(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, on_signal)
        text = f"{device.place}: asking for work"
        begun = {"place": device.place, "state": state, "data": data}
        log.info("%(place)s: asking for work; state in %(state)s, data: %(data)s", begun)
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        notify("READY=1")
        with beating() as turn:
            while True:
                turn()
                done = device.step(BUDGET_S, wait_s=hold_s)
                if signals:
                    stop(signals[0])
                if done.kind not in QUIET:
                    said = said if done.kind == last else Seldom()
                    text = str(done)
                    if done.kind in ALWAYS or said.due(done.kind, time.monotonic()):
                        log.info("%(event)s", {"event": text, "kind": done.kind})
                    last = done.kind
                if done.kind == "over" or (once and done.round_ends):
                    return
                time.sleep(done.wait_s)


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
