"""One peer's connection: read a head, let the handler answer, send, throw away what it left of the body, again.

Every wait has an end in `Limits`, and no buffer grows with the size of a body or the slowness of a reader.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace

from edgemeta.http.budget import Budget, Place
from edgemeta.http.exchange import (
    BLOCK,
    BODILESS,
    Body,
    Disconnected,
    FilePart,
    Response,
    blocks,
    open_files,
    refusal,
    response_head,
    shrunk,
)
from edgemeta.http.head import Fault
from edgemeta.http.http1 import NEED_DATA, Event, Limits, Parser, ProtocolError, Request
from edgemeta.logs import Failures, Seldom

log = logging.getLogger("edgemeta")

MISMATCHES = {
    Fault.TLS_TO_PLAIN_PORT: "speaks TLS, and this gateway does not: its address begins with http:// here",
    Fault.PLAIN_TO_TLS_PORT: "speaks plain HTTP, and this gateway speaks TLS: its address begins with https:// here",
}
PIECE = 1 << 16  # bytes taken from the peer at once
SENT = 1 << 18  # bytes of a file handed to the kernel at once: with a quarter of that, a model took 10.6 ms, not 6.6
Handler = Callable[[Request, Body], Awaitable[Response]]


@dataclass
class Service:
    """What the connections of a listener share. refusals: reason -> how many requests were refused for it here."""

    handler: Handler
    limits: Limits
    budget: Budget
    failures: Failures
    refusals: Counter[str] = field(default_factory=Counter)
    logged: Seldom = field(default_factory=Seldom)
    closing: bool = False

    def refused(self, error: ProtocolError, peer: str) -> None:
        """Count a refusal; one that whoever set up gateway and device has to hear of is logged too, now and then."""
        self.refusals[error.fault] += 1
        if error.fault in MISMATCHES and self.logged.due(error.fault, time.monotonic()):
            log.warning(f"%(peer)s {MISMATCHES[error.fault]}", {"peer": peer})


class Protocol(asyncio.StreamReaderProtocol):
    """asyncio's stream protocol, which also tells when the peer has gone while nobody is reading."""

    _gone = False
    _on_gone: Callable[[], None] | None = None

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        # The limit of 1 has the stream stop receiving while anything is unread: 64 uploads at once grew the process by
        # 11 MiB, and with asyncio's and the kernel's own sizes by more than 31.
        self.reader = asyncio.StreamReader(1, loop)
        super().__init__(self.reader, loop=loop)

    def writer(self) -> asyncio.StreamWriter:
        """Return what writes to the peer, once it is there."""
        return asyncio.StreamWriter(self._made, self, self.reader, asyncio.get_running_loop())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._made = transport
        super().connection_made(transport)

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


class Connection:
    """One peer. busy: a request is being answered."""

    def __init__(self, service: Service, protocol: Protocol, place: Place) -> None:
        self.busy = False
        self._service, self._limits, self._place = service, service.limits, place
        self._protocol, self._reader, self._writer = protocol, protocol.reader, protocol.writer()
        self._peer = str((self._writer.get_extra_info("peername") or [""])[0])
        self._parser = Parser(self._limits)
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock()
        # drain waits until all is sent (not high=0: asyncio's TLS would then pause for ever with nothing left to send)
        self._writer.transport.set_write_buffer_limits(high=1, low=0)

    async def serve(self) -> None:
        """Answer requests until one side ends it."""
        try:
            while await self._exchange():
                pass
            await self._hang_up()
        except Disconnected:
            pass
        except Exception as error:
            self._service.failures.note("answer", error)

    async def turn_away(self, error: ProtocolError) -> None:
        """Say why no request is taken at all."""
        response = self._excuse(error)
        with suppress(Disconnected):
            await self._send(response_head(response, keep_alive=False), response)
            await self._hang_up()

    async def abort(self) -> None:
        """Cut the connection, if it has not ended in order, and wait until nothing is left of it."""
        self._writer.transport.abort()
        with suppress(OSError, asyncio.CancelledError):
            await self._writer.wait_closed()

    async def _exchange(self) -> bool:
        """Answer one request; return whether another one may follow."""
        self.busy = keep = head_only = False
        with ExitStack() as files:
            try:
                request = await self._request()
                if request is None:
                    return False
                self.busy, head_only = True, request.method == "HEAD"
                body = Body(request, self._peer, self._receive, self._send_continue, self._claim)
                response = open_files(await self._handle(request, body), files)
                asked = {"peer": self._peer, "method": request.method, "path": request.path, "status": response.status}
                log.debug("%(peer)s: %(method)s %(path)s, answered by %(status)d", asked)
                keep = request.keep_alive and not (self._service.closing or body.withheld or self._place.spare)
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
        self._service.budget.ended(self._place)
        return keep

    async def _request(self) -> Request | None:
        """Return the next request, or None when the peer is done or silent for too long."""
        event = self._parser.next_event()
        if event is NEED_DATA:
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    data = await self._reader.read(PIECE)
            except OSError:  # TimeoutError is one
                return None
            if not data:
                return None
            self._parser.receive(data)
            event = self._parser.next_event()
        self._service.budget.began(self._place, self._clock())
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
                    data = await self._reader.read(PIECE)
            except TimeoutError:
                limit_s = self._limits.request_deadline_s
                raise ProtocolError(Fault.REQUEST_TIMEOUT, f"a request has {limit_s:g} s to arrive") from None
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
                    return await self._service.handler(request, body)
                finally:
                    self._protocol.watch(None)
        except TimeoutError:
            if patience.expired():
                raise Disconnected from None
            raise

    def _excuse(self, error: Exception) -> Response:
        """Return the answer to a request that ended in an error."""
        if not isinstance(error, ProtocolError):
            self._service.failures.note("request", error)
            return refusal(Fault.INTERNAL_ERROR, "the gateway failed on this request; its log says why")
        self._service.refused(error, self._peer)
        wait = {"Retry-After": str(self._limits.retry_after_s)} if error.fault.status == 503 else None
        return refusal(error.fault, error.detail, wait)

    def _claim(self, key: Hashable) -> None:
        if not self._service.budget.claim(self._place, key):
            raise ProtocolError(Fault.TOO_MANY_CONNECTIONS, "the gateway is busy: try again later")

    async def _send_continue(self) -> None:
        await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _send(self, head: bytes, response: Response) -> None:
        await self._write(head)
        plain = self._writer.get_extra_info("ssl_object") is None
        for part in response.parts:
            rest = await self._send_by_kernel(part) if plain and isinstance(part, FilePart) else part
            async with aclosing(blocks(rest)) as body:
                async for block in body:
                    self._writer.write(block)
                    del block  # a slow reader costs what the kernel did not take yet, and no second copy of it
                    await self._drain()

    async def _send_by_kernel(self, part: FilePart) -> FilePart:
        """Have the kernel send a file, in a third of the time of blocks that pass through this process.

        Returns what it would not take: normally nothing.
        """
        loop, end = asyncio.get_running_loop(), part.offset + part.length
        with open(part.source, "rb", buffering=0, closefd=False) as file:
            for start in range(part.offset, end, SENT):
                count = min(SENT, end - start)
                try:
                    async with asyncio.timeout(self._limits.write_stall_s * -(-count // BLOCK)):
                        sent = await loop.sendfile(self._writer.transport, file, start, count, fallback=False)
                except OSError:  # TimeoutError is one
                    raise Disconnected from None
                except RuntimeError:  # not a byte went: a file system that cannot do it, or the peer is gone after all
                    return replace(part, offset=start, length=end - start)
                if sent < count:
                    raise shrunk(start + sent)
        return replace(part, offset=end, length=0)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._drain()

    async def _drain(self) -> None:
        """Wait until the kernel has everything. Raises Disconnected, also for a peer that reads too slowly."""
        try:
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
                    data = await self._reader.read(PIECE)
            self._writer.close()  # over TLS that takes a farewell from both
            async with asyncio.timeout(self._limits.linger_s):
                await self._writer.wait_closed()
