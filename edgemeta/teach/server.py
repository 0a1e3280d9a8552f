"""A device's page, served by a thread while the device goes on with its work."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from edgemeta.device.device import Device
from edgemeta.http.hosts import names_here
from edgemeta.http.http1 import Limits
from edgemeta.http.listener import serve
from edgemeta.teach.routes import MOST_BYTES, Served, answer

LIMITS = Limits(max_body_bytes=MOST_BYTES, request_deadline_s=60.0, max_connections=32)

Running = tuple[int, asyncio.AbstractEventLoop, asyncio.Event]


@contextmanager
def page_of(
    device: Device,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ssl.SSLContext | None = None,
    code: str = "",
    camera: Callable[[], Any] | None = None,
) -> Iterator[int]:
    """Serve a device's page while the context lasts; gives the port. port: 0 for any one.

    code: that a browser has to give before it sees more than that there is a page. Beyond this machine, give that and
    tls, or whoever is on the network teaches the device. camera: of the board, for the live view: it returns what it
    sees now, as `Device.learn` takes it, and is called by one thread at a time. Raises InputError when the address
    cannot be had.
    """
    started: Future[Running] = Future()
    served = Served(device, names_here(host), code, camera)
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(served, host, port, tls, started)), name="page", daemon=True
    )
    thread.start()
    number, loop, stopped = started.result()
    try:
        yield number
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()


async def _serve(served: Served, host: str, port: int, tls: ssl.SSLContext | None, started: Future[Running]) -> None:
    stopped = asyncio.Event()
    try:
        listener = await serve(partial(answer, served), host, port, LIMITS, tls)
    except BaseException as error:
        started.set_exception(error)
        return
    started.set_result((listener.port, asyncio.get_running_loop(), stopped))
    await stopped.wait()
    await listener.close()
