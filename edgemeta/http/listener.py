"""The gateway's ear: an asyncio server that hands requests to one handler and streams its answers.

    listener = await serve(handler, "127.0.0.1", 0, Limits())
    ...
    await listener.close()

One task a connection (see connection.py), and a bound on their number. What a connection holds is bounded in the kernel
too, by the socket buffers that are set: sixty-four slow readers are not sixty-four copies there either.
"""

import asyncio
import socket
import ssl as tls
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from edgemeta.errors import InputError
from edgemeta.http.connection import Connection, Handler, Protocol, Service
from edgemeta.http.door import Door
from edgemeta.http.head import Fault
from edgemeta.http.http1 import Limits, ProtocolError

BACKLOG = 1024  # connections the kernel holds until they are accepted: devices come back all at once
# Bytes in the kernel for each connection, which may double them: enough for 1 MB/s up and 2.5 MB/s down over a line
# of 50 ms, and far more nearby. Left to itself the kernel gives a slow reader 2.5 MB and more.
RECEIVE_BUFFER, SEND_BUFFER = 1 << 16, 1 << 17
BUSY = ProtocolError(Fault.TOO_MANY_CONNECTIONS, "the gateway is busy: try again later")
TLS_ONLY = ProtocolError(Fault.PLAIN_TO_TLS_PORT, "this port speaks TLS: use https:// in the address, or a join file")


class Listener:
    """A server that listens. port: the one it got; refusals: reason -> how many requests this module refused for it."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._service = Service(handler, limits)
        self.refusals: Counter[str] = self._service.refusals
        self._served: dict[asyncio.Task[None], Connection] = {}
        self._turned_away: dict[asyncio.Task[None], Connection] = {}
        self._doors: set[asyncio.Task[None]] = set()

    def start(self, server: asyncio.Server) -> None:
        """Take over the server that calls `connected`."""
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, let answers under way finish for limits.close_grace_s, then cut what is left."""
        self._service.closing = True
        self._server.close()
        doors = set(self._doors)
        for task in doors:
            task.cancel()
        if doors:
            await asyncio.wait(doors)
        connections = {**self._served, **self._turned_away}
        for task, connection in connections.items():
            if not connection.busy:
                task.cancel()
        if connections:
            _, late = await asyncio.wait(connections, timeout=self._service.limits.close_grace_s)
            for task in late:
                task.cancel()
            await asyncio.wait(connections)
        await self._server.wait_closed()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end, or turn it away when there are too many."""
        full = len(self._served) >= self._service.limits.max_connections
        await self._hold(reader, writer, BUSY if full else None)

    async def unencrypted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell a peer that speaks plain HTTP that TLS is spoken here."""
        await self._hold(reader, writer, TLS_ONLY)

    def door(self, context: tls.SSLContext) -> Door:
        """Return what a new connection meets first where TLS is spoken."""
        limits = self._service.limits
        return Door(
            context,
            lambda: _protocol(self.connected),
            lambda: _protocol(self.unencrypted),
            inside=self._doors,
            most=limits.max_connections,
            patience_s=limits.idle_s,
            logged=self._service.logged,
        )

    async def _hold(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: ProtocolError | None
    ) -> None:
        """Keep account of a connection from here to its end. error: why it is not served, if it is not."""
        connection, task = Connection(self._service, reader, writer), asyncio.current_task()
        assert task is not None
        crowd = self._turned_away if error else self._served
        try:
            if self._service.closing or len(crowd) >= self._service.limits.max_connections:
                await connection.turn_away(error or BUSY, linger=False)
                return
            crowd[task] = connection
            await (connection.turn_away(error, linger=True) if error else connection.serve())
        except asyncio.CancelledError:
            pass  # cut by close; asyncio would log it as an error
        finally:
            writer.transport.abort()  # nothing is left to cut after an orderly end
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()  # so that nothing of it is left when `close` returns
            crowd.pop(task, None)


def _protocol(serve_one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Protocol:
    # The limit of 1 has the stream stop receiving while anything is unread: 64 uploads at once grew the process by
    # 11 MiB, and with asyncio's and the kernel's own sizes by more than 31.
    loop = asyncio.get_running_loop()
    return Protocol(asyncio.StreamReader(1, loop), serve_one, loop)


async def serve(handler: Handler, host: str, port: int, limits: Limits, ssl: tls.SSLContext | None = None) -> Listener:
    """Start to answer requests on host and port (0: any free one; the listener's `port` says which).

    handler: (Request, Body) -> Response, one call at a time for each connection; cancelled when its peer goes away.
    Raises InputError when the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    listener = Listener(handler, limits)

    def newcomer() -> asyncio.Protocol:
        return _protocol(listener.connected) if ssl is None else listener.door(ssl)

    try:
        server = await loop.create_server(newcomer, host, port, backlog=BACKLOG, start_serving=False)
        for listening in server.sockets:  # accepted sockets inherit these
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        await server.start_serving()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error}; "
            "expected an address of this machine and a free port: stop the other program or choose another port"
        ) from error
    listener.start(server)
    return listener
