"""A gateway's life: open the newest run, listen, go on until another one follows or it is stopped, close in order."""

import asyncio
import logging
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.changes import Change, changed, read_changes
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.plan import Plan
from edgemeta.fed.runs import config_of, is_followed, runs, shown_run
from edgemeta.fed.scores import Record
from edgemeta.fed.upload import most_bytes
from edgemeta.gateway.announced import announce, new_name
from edgemeta.gateway.gateway import Gateway
from edgemeta.gateway.renewal import LOOK_S as RENEWAL_S
from edgemeta.gateway.renewal import Renewal
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.routes import answer
from edgemeta.gateway.seen import keep_seen
from edgemeta.gateway.standings import waiting_for
from edgemeta.gateway.tokens import DEVICES_FILE, Tokens
from edgemeta.http.exchange import off_loop
from edgemeta.http.hosts import names_here
from edgemeta.http.http1 import Limits
from edgemeta.http.listener import Listener, bind, serve
from edgemeta.link.address import is_local, is_loopback
from edgemeta.link.notify import notify, watchdog_s
from edgemeta.logs import Failures
from edgemeta.meta.learners import sizes
from edgemeta.nn.files import load_parameters
from edgemeta.nn.heads import give_head

log = logging.getLogger("edgemeta")

SEEN_S = 600.0  # between two times when it is kept who was heard: a card lasts longer for it
MOST_EARLIER = 20  # runs that a status lists beside the one at work
LOOK_S = 0.2  # between two looks for a run that follows one that is over


async def run_gateway(
    site: Path,
    host: str,
    port: int,
    *,
    stopped: asyncio.Future[int],
    on_listening: Callable[[int], None],
    on_round: Callable[[Record, int | None], None] = lambda _record, _last: None,
    tls: ssl.SSLContext | None = None,
    renewal: Renewal | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    bound: list[socket.socket] | None = None,
    announced: bool = False,
    kind: type[Coordinator] = Coordinator,
) -> int:
    """Serve a site's newest run, and each one that follows it, until `stopped` has a result, and return that.

    site: one that the caller has opened, with a run in it (`edgemeta.gateway.site`). on_listening gets the port,
    on_round a round's record and the last round's number. tls, insecure: see `is_closed`. renewal: where tls comes
    from, again when it is renewed. names: by which others find this gateway, beside its addresses, the host's own names
    and `host`. bound: what `bound_to` has, if that was asked before. announced: to who looks for it on its networks,
    where it listens beyond this machine. kind: what coordinates its runs. Raises InputError when the address cannot be
    had, ConfigError when the gateway would be open to a network, and StorageError.
    """
    tokens = Tokens(site / DEVICES_FILE, required=is_closed(host, encrypted=tls is not None, insecure=insecure))
    hosts, name = names_here(host, *names), new_name()
    while not stopped.done():
        run = runs(site)[-1]
        directory = RunDirectory(run, config_of(run), elsewhere=True, site=site)
        try:
            gateway, limits = _opened(site, directory, tokens, on_round, hosts, kind)
            tls = renewal.context if renewal else tls
            listener = await serve(partial(answer, gateway), host, port, limits, tls, gateway.failures, bound)
            bound = None
            gateway.listener = listener
            gateway.listener_refusals, port = listener.refusals, listener.port
            asyncio.get_running_loop().set_exception_handler(partial(_unexpected, gateway.failures))
            tasks: list[asyncio.Future[None]] = [
                asyncio.ensure_future(work)
                for work in (
                    gateway.watch(),
                    _beat(),
                    _renewed(renewal, listener, gateway),
                    _note_seen(site, gateway),
                    _announced(name if announced else "", listener, gateway),
                    _followed(gateway),
                )
            ]
            try:
                on_listening(port)
                notify("READY=1")
                await asyncio.wait({cast(asyncio.Future[Any], stopped), tasks[-1]}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gateway.stop()
                await listener.close()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        finally:
            directory.close()
    return stopped.result()


def _opened(
    site: Path,
    directory: RunDirectory,
    tokens: Tokens,
    on_round: Callable[[Record, int | None], None],
    hosts: Collection[str],
    kind: type[Coordinator],
) -> tuple[Gateway, Limits]:
    """Return what serves the run in a directory, and what its messages may be."""
    run = directory.path

    def asked() -> tuple[Sequence[Change], Plan]:
        changes = read_changes(run)
        return changes, Plan(changed(config_of(run), changes))

    directory.load_progress()  # which finds the model again after a power cut
    network = load_parameters(directory.model_path).model
    plan = asked()[1]
    if plan.config.model.most_classes:  # which a model file does not have, as its head is no part of it
        give_head(network, plan.config.model.most_classes)
    roster = Roster(run / "roster.json", plan.config.data.participants, secrets.token_hex(16))
    coordinator = kind(plan, network, None, directory, roster.names, time.monotonic(), name=roster.name, own=roster.own)
    gateway = Gateway(
        *(coordinator, roster, tokens, lambda record: on_round(record, coordinator.plan.last_round), hosts, asked),
        earlier=_earlier(site),
    )
    size, awaited = network.layout.size, waiting_for(coordinator, roster.name, time.monotonic())
    about = {"run": run.name, "site": site, "model": network.name, "parameters": size, "awaited": awaited}
    log.info("run %(run)s in %(site)s: %(model)s with %(parameters)d parameters; %(awaited)s", about)
    if tokens.required:
        log.info("devices join with the token of their join file ('edgemeta enroll'): %d enrolled", tokens.enrolled)
    vectors = [sizes(network, phase.algorithm) for phase in plan.config.phases]
    limits = Limits(
        max_body_bytes=max(map(most_bytes, vectors, (phase.upload for phase in plan.config.phases))),
        files_per_answer=min(max(map(len, vectors)), 2),  # the model, and what goes beside it
    )
    return gateway, limits


def _earlier(site: Path) -> list[dict[str, Any]]:
    """Return what is shown of the runs before the newest one, the last few of them."""
    shown = []
    for run in runs(site)[:-1][-MOST_EARLIER:]:
        with suppress(ConfigError, StorageError):  # a damaged one is not in the way of the run at work
            shown.append(shown_run(run))
    return shown


async def _note_seen(site: Path, gateway: Gateway) -> None:
    """Keep when devices were last heard, now and then and at the end."""
    try:
        while True:
            await asyncio.sleep(SEEN_S)
            await off_loop(_keep_seen, site, gateway)
    finally:
        _keep_seen(site, gateway)


def _keep_seen(site: Path, gateway: Gateway) -> None:
    past_s = time.time() - time.monotonic()
    try:
        keep_seen(site, {gateway.roster.name(k): past_s + heard for k, heard in dict(gateway.heard).items()})
    except (ConfigError, StorageError) as error:
        log.warning("%s; when devices were last heard is not kept", error)


async def _renewed(renewal: Renewal | None, listener: Listener, gateway: Gateway) -> None:
    """Have new connections use the certificate that is there."""
    while renewal:
        gateway.certificate = renewal.offered
        with gateway.failures.survived("renewal"):
            if await off_loop(renewal.renewed) and renewal.offered:
                listener.ssl = renewal.context
                gateway.hosts = {*gateway.hosts, *map(str.lower, renewal.offered.names)}
                log.info("the new certificate is used: it is for %s", ", ".join(renewal.offered.names))
        gateway.certificate = renewal.offered
        await asyncio.sleep(RENEWAL_S)


async def _announced(name: str, listener: Listener, gateway: Gateway) -> None:
    """Have devices find the gateway under a name, if it has one and can be reached by others."""
    if name and not all(map(is_loopback, listener.addresses)):
        with gateway.failures.survived("announcement"):
            await announce(name, listener.port, listener.addresses, encrypted=listener.ssl is not None)


async def _followed(gateway: Gateway) -> None:
    """Return when the run is over and another one is there."""
    run, followed = gateway.coordinator.directory.path, False
    while not followed:
        await asyncio.sleep(LOOK_S)
        with suppress(StorageError):  # it is looked at again
            followed = gateway.coordinator.finished and is_followed(run)
    log.info("another run follows run %(run)s", {"run": run.name})


@contextmanager
def bound_to(host: str, port: int, *, encrypted: bool, insecure: bool) -> Iterator[list[socket.socket]]:
    """Have the sockets of an address at which a gateway may listen: before it claims a folder, as that may fail.

    Raises ConfigError (see `is_closed`), and InputError when the address cannot be had.
    """
    is_closed(host, encrypted=encrypted, insecure=insecure)
    sockets = asyncio.run(bind(host, port))
    try:
        yield sockets
    finally:
        for listening in sockets:
            listening.close()


def is_closed(host: str, *, encrypted: bool, insecure: bool) -> bool:
    """Say whether nobody joins without a device token, even while no device is enrolled: beyond this machine, so it is.

    There a gateway also speaks TLS; insecure waives both. Raises ConfigError where it should and cannot.
    """
    closed = not insecure and not is_local(host)
    if closed and not encrypted:
        raise ConfigError(
            f"{host} is open to other machines, and there is no certificate for encryption: make one by 'edgemeta tls' "
            "and let devices in by 'edgemeta enroll', or listen on 127.0.0.1, or add --insecure where every machine "
            "of the network may listen and take part"
        )
    return closed


def signalled() -> asyncio.Future[int]:
    """Return what gets the number of the signal that asks the running loop's process to stop."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, stop, number)
    return stopped


def _unexpected(failures: Failures, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take note of an error that came up in nobody's task, instead of a traceback each time."""
    failures.note("callback", context.get("exception") or RuntimeError(context["message"]))


async def _beat() -> None:
    """Tell the service manager again and again that the loop turns."""
    while every_s := watchdog_s():
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
