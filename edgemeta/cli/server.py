"""`edgemeta server`: the gateway."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemeta.cli import options, streams
from edgemeta.cli.settings import settings_from

if TYPE_CHECKING:
    from edgemeta.config import RunConfig


@click.command()
@click.option("--config", metavar="RUN.toml|PRESET", help="A configuration file, or the name of a built-in one.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8742, show_default=True, metavar="P", help="0: any one.")
@options.state("The run directory; one that exists goes on.")
@click.option("--init", type=click.Path(path_type=Path), metavar="MODEL", help="Start from this model file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
@click.option("--cert", type=click.Path(path_type=Path), metavar="FILE", help="A certificate of one's own, PEM.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, when that is in another file.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A name by which it is found; may be repeated.")
@click.option("--no-announce", "silent", is_flag=True, help="Do not answer who looks for a gateway on its network.")
@click.option("--superlink", metavar="URL", help="Take part in Flower there, as one SuperNode for this site's boards.")
@click.option("--partition-id", type=click.IntRange(0), metavar="K", help="Which participant this site is there.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without encryption or access control.")
@options.log
def server(
    config: str | None,
    host: str,
    port: int,
    state: Path,
    init: Path | None,
    assignments: tuple[str, ...],
    cert: Path | None,
    key: Path | None,
    names: tuple[str, ...],
    silent: bool,
    superlink: str | None,
    partition_id: int | None,
    insecure: bool,
    log_level: str,
    log_json: bool,
) -> None:
    """Run the gateway: devices join it, get work from it and send their updates to it, until it is stopped.

    It speaks TLS where `edgemeta tls` has made a certificate, or --cert gives one. Beyond this machine it has to, and
    devices have to be enrolled; --insecure waives both. What is answered without a token is answered under its address,
    this machine's names, those of the certificate and --name.
    """
    from edgemeta.folders import is_new
    from edgemeta.gateway.renewal import Renewal

    new = is_new(state)
    streams.nothing_but_said()
    renewal = Renewal(state, cert, key)
    encryption, offered = renewal.context, renewal.offered
    settings = settings_from(config, {}, assignments)

    import asyncio
    import logging
    import socket
    from contextlib import nullcontext

    from edgemeta.cli.run import given
    from edgemeta.fed.between import Between, check_between
    from edgemeta.fed.coordinator import Coordinator
    from edgemeta.fed.lines import round_facts
    from edgemeta.fed.runs import config_of, runs
    from edgemeta.flower.site import beside, node_command
    from edgemeta.gateway.memory import give_back_large_blocks
    from edgemeta.gateway.server import bound_to, run_gateway, signalled
    from edgemeta.logs import ForPrograms, json_line, log_to_stderr, logfmt

    log_to_stderr(ForPrograms(json_line if log_json else logfmt), log_level)
    log = logging.getLogger("edgemeta")
    give_back_large_blocks()
    node = None if superlink is None else node_command(superlink, partition_id, state)

    async def serve(bound: list[socket.socket]) -> int:
        stopped = signalled()
        serving = run_gateway(
            *(state, host, port),
            stopped=stopped,
            kind=Between if node else Coordinator,
            on_listening=lambda got: click.echo(
                f"listening on http{'s' if encryption else ''}://{f'[{host}]' if ':' in host else host}:{got}"
            ),
            tls=encryption,
            renewal=renewal,
            bound=bound,
            insecure=insecure,
            announced=not silent,
            names=[*(offered.names if offered else ()), *names],
            on_round=lambda record, last_round: log.info("%(event)s", round_facts(record, last_round)),
        )
        async with beside(node, stopped) if node else nullcontext():
            return await serving

    with bound_to(host, port, encrypted=encryption is not None, insecure=insecure) as bound:
        said = given(config, assignments) if config or assignments else None
        with at_work(state, settings, init=init, said=said, new=new):
            if node:
                check_between(config_of(runs(state)[-1]))
            number = asyncio.run(serve(bound))
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    log.info("stopped: what was accepted is kept; run the same command to go on")


@contextmanager
def at_work(site: Path, settings: "RunConfig", init: Path | None, said: str | None, new: bool) -> Iterator[None]:
    """Hold a site whose run begins, or goes on.

    said: the options that say settings, with which a run that is there has to agree; None where none were given.
    """
    import logging

    from edgemeta import api
    from edgemeta.cli.run import resolved
    from edgemeta.fed.runs import runs
    from edgemeta.gateway.site import begin_run, compare, has_run, opened

    log, there = logging.getLogger("edgemeta"), has_run(site)
    own_model = (runs(site) or [site])[0] / api.MODEL_FILE
    asked, network, data = None, None, None
    if said is not None or not there:
        asked, network, data = resolved(settings, None if there else init, own_model)
    with opened(site):
        if new:
            log.info("%(site)s is the site of a gateway from now on", {"site": site})
        if asked and network and not there:
            begin_run(site, asked, network, api.initial(network, asked.seed, init, asked.model.names), data)
        elif asked and said is not None:
            compare(site, asked, data, said)
        if there and init:
            log.warning("--init is for a run that begins: this one goes on from its own model")
        del network  # a gateway at work has its own
        yield
