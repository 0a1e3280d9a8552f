"""A gateway's life: open the run, listen, go on until it is stopped, close in order."""

import asyncio
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig
from edgemeta.fed import Coordinator, Plan, RunDirectory
from edgemeta.fed.roster import Roster
from edgemeta.net.gateway import UPDATE_EXTRA_BYTES, Gateway
from edgemeta.net.http1 import Limits
from edgemeta.net.listener import serve
from edgemeta.net.routes import answer
from edgemeta.nn import Model, Vector


async def run_gateway(
    config: RunConfig,
    network: Model,
    theta: Vector,
    state: Path,
    host: str,
    port: int,
    *,
    on_listening: Callable[[int], None],
    on_round: Callable[[Mapping[str, Any]], None],
) -> int:
    """Serve a run, new or the one in `state`, until a signal stops it; return the signal's number.

    theta: where a new run starts. on_listening gets the port. Raises InputError when the address cannot be had,
    ConfigError when `state` holds another run, and StorageError.
    """
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    directory = RunDirectory(state, config)
    try:
        roster = Roster(state / "roster.json", config.data.participants, secrets.token_hex(16))
        coordinator = Coordinator(
            Plan(config), network, theta, directory, roster.names, time.monotonic(), name=roster.name
        )
        gateway = Gateway(coordinator, roster, on_round)
        limits = Limits(max_body_bytes=4 * gateway.size + UPDATE_EXTRA_BYTES)
        listener = await serve(partial(answer, gateway), host, port, limits)
        gateway.listener_refusals = listener.refusals
        watch = asyncio.create_task(gateway.watch())
        try:
            on_listening(listener.port)
            watch.add_done_callback(lambda _: stop(signal.SIGTERM))  # it ends by an error only, raised below
            await stopped
        finally:
            gateway.stop()
            await listener.close()
            watch.cancel()
            await asyncio.wait([watch])
        if not watch.cancelled():
            watch.result()  # raises what ended it
        return stopped.result()
    finally:
        directory.close()
