"""A gateway's life: open the run, listen, go on until it is stopped, close in order."""

import asyncio
import logging
import secrets
import signal
import ssl
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig
from edgemeta.data.fingerprint import Fingerprint
from edgemeta.errors import ConfigError
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.plan import Plan
from edgemeta.fed.scores import Record
from edgemeta.fed.upload import most_bytes
from edgemeta.gateway.gateway import Gateway
from edgemeta.gateway.hosts import names_here
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.routes import answer
from edgemeta.gateway.tokens import DEVICES_FILE, Tokens
from edgemeta.http.http1 import Limits
from edgemeta.http.listener import serve
from edgemeta.link.address import is_local
from edgemeta.link.notify import notify, watchdog_s
from edgemeta.logs import Failures
from edgemeta.meta.learners import sizes
from edgemeta.nn import Model, Vector

log = logging.getLogger("edgemeta")


async def run_gateway(
    config: RunConfig,
    network: Model,
    theta: Vector,
    state: Path,
    host: str,
    port: int,
    *,
    stopped: asyncio.Future[int],
    on_listening: Callable[[int], None],
    on_round: Callable[[Record], None] = lambda _: None,
    tls: ssl.SSLContext | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    data: Fingerprint | None = None,
) -> int:
    """Serve a run, new or the one in `state`, until `stopped` has a result, and return that.

    config: resolved. theta: where a new run starts. on_listening gets the port. tls, insecure: see `is_closed`. names:
    by which others find this gateway, beside its addresses, the host's own names and `host`. data: of what the
    configuration was resolved with, if that had to be opened. Raises InputError when the address cannot be had,
    ConfigError when `state` holds another run or the gateway would be open to a network, and StorageError.
    """
    closed = is_closed(host, encrypted=tls is not None, insecure=insecure)
    directory = RunDirectory(state, config, data=data, elsewhere=data is None)
    try:
        roster = Roster(state / "roster.json", config.data.participants, secrets.token_hex(16))
        tokens = Tokens(state / DEVICES_FILE, required=closed)
        coordinator = Coordinator(
            Plan(config), network, theta, directory, roster.names, time.monotonic(), name=roster.name, own=roster.own
        )
        del theta  # it is in the run's directory now
        gateway = Gateway(coordinator, roster, tokens, on_round, names_here(host, *names))
        size, waiting_for = network.layout.size, gateway.waiting_for()
        log.info("run in %s: %s with %d parameters; %s", state, network.name, size, waiting_for)
        if tokens.required:
            log.info("devices join with the token of their join file ('edgemeta enroll'): %d enrolled", tokens.enrolled)
        vectors = [sizes(network, phase.algorithm) for phase in config.phases]
        limits = Limits(
            max_body_bytes=max(map(most_bytes, vectors, (phase.upload for phase in config.phases))),
            files_per_answer=min(max(map(len, vectors)), 2),  # the model, and what goes beside it
        )
        listener = await serve(partial(answer, gateway), host, port, limits, tls, gateway.failures)
        gateway.listener_refusals = listener.refusals
        asyncio.get_running_loop().set_exception_handler(partial(_unexpected, gateway.failures))
        watch = asyncio.create_task(gateway.watch())
        beat = asyncio.create_task(_beat())
        try:
            on_listening(listener.port)
            notify("READY=1")
            return await stopped
        finally:
            gateway.stop()
            await listener.close()
            watch.cancel()
            beat.cancel()
            await asyncio.wait([watch, beat])
    finally:
        directory.close()


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

    for number in (signal.SIGTERM, signal.SIGINT):
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
