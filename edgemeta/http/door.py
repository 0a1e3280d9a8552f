"""The way in where the gateway speaks TLS: look at a peer's first byte, then shake hands, or say that TLS is spoken.

A peer that speaks plain HTTP gets an answer that it understands, and a handshake that fails is logged with its reason:
left to asyncio, both would see a connection that just ends.
"""

import asyncio
import logging
import socket
import ssl
import time
from asyncio.trsock import TransportSocket
from collections.abc import Callable

from edgemeta.logs import Seldom

log = logging.getLogger("edgemeta")

HANDSHAKE = b"\x16"  # the first byte of every TLS connection
UNREAD = 1 << 16  # bytes of a peer that TLS takes in ahead of their reader
ADVICE = {  # what a peer's farewell, as OpenSSL calls it, says about the peer
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust this gateway's certificate: is its join file of this gateway?",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this gateway's certificate: is the name right, and its clock?",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this gateway's certificate has expired, or its clock is wrong",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.2 or newer",
}


class Door(asyncio.Protocol):
    """A connection until it is known what the peer speaks; `encrypted` and `plain` make what takes over then.

    inside: who is at the door now; most: how many there may be, one more is cut off. patience_s: for the handshake.
    logged: what was logged of late.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        encrypted: Callable[[], asyncio.Protocol],
        plain: Callable[[], asyncio.Protocol],
        *,
        inside: set[asyncio.Task[None]],
        most: int,
        patience_s: float,
        logged: Seldom,
    ) -> None:
        self._context, self._encrypted, self._plain = context, encrypted, plain
        self._inside, self._most, self._patience_s, self._logged = inside, most, patience_s, logged

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._inside) >= self._most:
            transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._open())
        self._inside.add(task)
        task.add_done_callback(self._inside.discard)

    async def _open(self) -> None:
        transport = self._transport
        # Nothing is taken from the socket before it is known for whom. Not in `connection_made`: until Python 3.11.3
        # a transport starts to read after that, paused or not. No byte can have come before a task's first step.
        transport.pause_reading()
        try:
            async with asyncio.timeout(self._patience_s):
                first = await _first_byte(transport.get_extra_info("socket"))
                if first == HANDSHAKE:
                    await self._shake_hands()
                elif first:
                    protocol = self._plain()
                    transport.set_protocol(protocol)
                    protocol.connection_made(transport)
                    transport.resume_reading()
                else:
                    transport.abort()
        except OSError as error:  # ssl.SSLError and TimeoutError too
            transport.abort()
            self._failed(error)
        except BaseException:
            transport.abort()
            raise

    async def _shake_hands(self) -> None:
        protocol, loop = self._encrypted(), asyncio.get_running_loop()
        inner = await loop.start_tls(
            self._transport, protocol, self._context, server_side=True, ssl_handshake_timeout=self._patience_s
        )
        if inner is None:
            return  # the peer has gone already
        # Not in asyncio's documents, so only where it is: 64 uploads at once then take 44 MiB, and 72 without.
        if hasattr(inner, "set_read_buffer_limits"):
            inner.set_read_buffer_limits(UNREAD)
        protocol.connection_made(inner)

    def _failed(self, error: OSError) -> None:
        reason = getattr(error, "reason", None)
        peer = str((self._transport.get_extra_info("peername") or [""])[0])
        if isinstance(error, ssl.SSLError) and reason and self._logged.due(reason, time.monotonic()):
            log.warning("no TLS with %s: %s", peer, ADVICE.get(reason, reason.lower().replace("_", " ")))


async def _first_byte(connection: TransportSocket) -> bytes:
    """Return the first byte that a peer sends, without taking it; b"" when it sends none and goes."""
    loop = asyncio.get_running_loop()
    with connection.dup() as waiting:  # of its own number, as asyncio watches the other one
        while True:
            try:
                return waiting.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(waiting, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_reader(waiting)
