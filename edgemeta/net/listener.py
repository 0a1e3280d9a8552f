"""The gateway's ear: an asyncio server that hands requests to one handler and streams its answers.

    listener = await serve(handler, "127.0.0.1", 0, Limits())
    ...
    await listener.close()

One task a connection: read a head, let the handler answer, send, throw away what it left of the body, again. No peer
can hold it up: every wait has an end in `Limits`, and no buffer grows with the size of a body or the slowness of a
reader, neither here nor, by the socket buffers that are set, in the kernel.
"""

import asyncio
import logging
import socket
import ssl as tls
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace

from edgemeta.errors import InputError
from edgemeta.net.exchange import (
    BLOCK,
    BODILESS,
    Body,
    Disconnected,
    Response,
    blocks,
    open_files,
    refusal,
    response_head,
)
from edgemeta.net.http1 import NEED_DATA, Event, Limits, Parser, ProtocolError, Request

log = logging.getLogger("edgemeta")

Handler = Callable[[Request, Body], Awaitable[Response]]
BACKLOG = 1024  # connections the kernel holds until they are accepted: devices come back all at once
SOCKET_BUFFER = 1 << 17  # bytes each way in the kernel, which may double it: 2.5 MB/s over a 50 ms line, more nearby


class Listener:
    """A server that listens. port: the one it got; refusals: reason -> how many requests this module refused for it."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler, self.limits = handler, limits
        self.refusals: Counter[str] = Counter()
        self.closing = False
        self._served: dict[asyncio.Task[None], _Connection] = {}
        self._turned_away: dict[asyncio.Task[None], _Connection] = {}

    def start(self, server: asyncio.Server) -> None:
        """Take over the server that calls `connected`."""
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, let answers under way finish for limits.close_grace_s, then cut what is left."""
        self.closing = True
        self._server.close()
        connections = {**self._served, **self._turned_away}
        for task, connection in connections.items():
            if not connection.busy:
                task.cancel()
        if connections:
            _, late = await asyncio.wait(connections, timeout=self.limits.close_grace_s)
            for task in late:
                task.cancel()
            await asyncio.wait(connections)
        await self._server.wait_closed()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end, or turn it away when there are too many."""
        connection, task = _Connection(self, reader, writer), asyncio.current_task()
        assert task is not None
        full = len(self._served) >= self.limits.max_connections
        crowd = self._turned_away if full else self._served
        try:
            if self.closing or len(crowd) >= self.limits.max_connections:
                await connection.turn_away(linger=False)
                return
            crowd[task] = connection
            await (connection.turn_away(linger=True) if full else connection.serve())
        except asyncio.CancelledError:
            pass  # cut by close; asyncio would log it as an error
        finally:
            crowd.pop(task, None)
            if not writer.transport.is_closing():
                writer.transport.abort()


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's stream protocol, which also tells when the peer has gone while nobody is reading."""

    _gone = False
    _on_gone: Callable[[], None] | None = None

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Call `on_gone` once when the peer is gone, or has shut its sending side."""
        self._on_gone = on_gone
        if self._gone and on_gone is not None:
            on_gone()

    def eof_received(self) -> bool | None:
        self._tell()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell()
        super().connection_lost(exc)

    def _tell(self) -> None:
        if not self._gone and self._on_gone is not None:
            self._on_gone()
        self._gone = True


class _Connection:
    """One peer. busy: a request is being answered."""

    def __init__(self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy = False
        self._listener, self._limits = listener, listener.limits
        self._reader, self._writer = reader, writer
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        self._protocol = protocol
        self._peer = str((writer.get_extra_info("peername") or [""])[0])
        self._parser = Parser(self._limits)
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock()
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has taken everything

    async def serve(self) -> None:
        """Answer requests until one side ends it."""
        try:
            while await self._exchange():
                pass
            await self._hang_up()
            self._writer.close()
        except Disconnected:
            pass
        except Exception:
            log.exception("a connection was cut in the middle of an answer")

    async def turn_away(self, linger: bool) -> None:
        """Say that there are too many connections; cheap, for when there are far too many."""
        wait = {"Retry-After": str(self._limits.retry_after_s)}
        self._listener.refusals["too-many-connections"] += 1
        try:
            response = refusal(503, "too-many-connections", "the gateway is busy: try again later", wait)
            await self._send(response_head(response, keep_alive=False), response)
            if linger:
                await self._hang_up()
            self._writer.close()
        except Disconnected:
            pass

    async def _exchange(self) -> bool:
        """Answer one request; return whether another one may follow."""
        self.busy = keep = head_only = False
        with ExitStack() as files:
            try:
                request = await self._request()
                if request is None:
                    return False
                self.busy, head_only = True, request.method == "HEAD"
                body = Body(request, self._peer, self._receive, self._send_continue)
                response = open_files(await self._handle(request, body), files)
                keep = request.keep_alive and not self._listener.closing and not body.withheld
                head = response_head(response, keep)
            except Disconnected:
                raise
            except Exception as error:
                keep, response = False, self._excuse(error)
                head = response_head(response, keep)
            if head_only or response.status in BODILESS:
                response = replace(response, body=b"")
            await self._send(head, response)
        try:
            if keep:
                await body.discard()
        except ProtocolError:
            return False  # it has had its answer
        return keep

    async def _request(self) -> Request | None:
        """Return the next request, or None when the peer is done or silent for too long."""
        event = self._parser.next_event()
        if event is NEED_DATA:
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    data = await self._reader.read(BLOCK)
            except OSError:  # TimeoutError is one
                return None
            if not data:
                return None
            self._parser.receive(data)
            event = self._parser.next_event()
        self._deadline = self._clock() + self._limits.request_deadline_s
        if event is NEED_DATA:
            event = await self._receive()
        assert isinstance(event, Request)
        return event

    async def _receive(self) -> Event:
        """Return the next event, never NEED_DATA. Raises ProtocolError, also when the request's time is up."""
        while (event := self._parser.next_event()) is NEED_DATA:
            try:
                async with asyncio.timeout_at(self._deadline):
                    data = await self._reader.read(BLOCK)
            except TimeoutError:
                limit_s = self._limits.request_deadline_s
                raise ProtocolError(408, "request-timeout", f"a request has {limit_s:g} s to arrive") from None
            except OSError:
                raise Disconnected from None
            if not data:
                raise Disconnected
            self._parser.receive(data)
        return event

    async def _handle(self, request: Request, body: Body) -> Response:
        """Let the handler answer; it is cancelled when the peer goes away, so that no wait is left behind."""
        try:
            async with asyncio.timeout(None) as patience:
                self._protocol.watch(lambda: patience.reschedule(self._clock() + self._limits.half_close_s))
                try:
                    return await self._listener.handler(request, body)
                finally:
                    self._protocol.watch(None)
        except TimeoutError:
            if patience.expired():
                raise Disconnected from None
            raise

    def _excuse(self, error: Exception) -> Response:
        """Return the answer to a request that ended in an error."""
        if not isinstance(error, ProtocolError):
            log.error("a request ended in an error", exc_info=error)
            return refusal(500, "internal-error", "the gateway failed on this request; its log says why")
        self._listener.refusals[error.reason] += 1
        return refusal(error.status, error.reason, error.detail)

    async def _send_continue(self) -> None:
        await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _send(self, head: bytes, response: Response) -> None:
        await self._write(head)
        async with aclosing(blocks(response)) as body:
            async for block in body:
                await self._write(block)

    async def _write(self, data: bytes | memoryview) -> None:
        """Send, and wait until the kernel has it. Raises Disconnected, also for a peer that reads too slowly."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(self._limits.write_stall_s):
                await self._writer.drain()
        except OSError:  # TimeoutError is one
            raise Disconnected from None

    async def _hang_up(self) -> None:
        """Close so that the peer can read its answer even while it is still sending: a reset would take that away."""
        end = max(self._deadline, self._clock() + self._limits.linger_s)
        with suppress(OSError):  # TimeoutError is one
            if self._writer.can_write_eof():
                self._writer.write_eof()
            data = b"unread"
            while data:
                async with asyncio.timeout_at(min(end, self._clock() + self._limits.linger_s)):
                    data = await self._reader.read(BLOCK)


async def serve(handler: Handler, host: str, port: int, limits: Limits, ssl: tls.SSLContext | None = None) -> Listener:
    """Start to answer requests on host and port (0: any free one; the listener's `port` says which).

    handler: (Request, Body) -> Response, one call at a time for each connection; cancelled when its peer goes away.
    Raises InputError when the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    listener = Listener(handler, limits)

    def protocol() -> _Protocol:
        return _Protocol(asyncio.StreamReader(BLOCK // 2, loop), listener.connected, loop)  # it holds twice the limit

    handshake_s = None if ssl is None else limits.idle_s
    try:
        server = await loop.create_server(
            protocol,
            host,
            port,
            ssl=ssl,
            ssl_handshake_timeout=handshake_s,
            backlog=BACKLOG,
            start_serving=False,
        )
        for listening in server.sockets:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # accepted sockets inherit them
                listening.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        await server.start_serving()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error}; "
            "expected an address of this machine and a free port: stop the other program or choose another port"
        ) from error
    listener.start(server)
    return listener
