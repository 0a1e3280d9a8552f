"""The way in where the gateway speaks TLS: a peer's first byte, the handshake, and what it means when that fails."""

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocol

HANDSHAKE = b"\x16"  # the first byte of every TLS connection
UNREAD = 1 << 16  # bytes of a peer that TLS takes in ahead of their reader
ADVICE = {  # what a peer's farewell, as OpenSSL calls it, says about the peer
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust this gateway's certificate: is its join file of this gateway?",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this gateway's certificate: is the name right, and its clock?",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this gateway's certificate has expired, or its clock is wrong",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.2 or newer",
}
# Not in asyncio's documents, so only where it is: a connection over TLS then takes 115 kB from its first byte on, not
# 310, and 64 uploads at once 44 MiB, not 72.
if hasattr(SSLProtocol, "max_size"):
    SSLProtocol.max_size = UNREAD


async def first_byte(peer: socket.socket) -> bytes:
    """Return the first byte that a peer sends, without taking it; b"" when it sends none and goes."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return peer.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(peer, _set, ready)
            try:
                await ready
            finally:
                loop.remove_reader(peer)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def advice(error: OSError) -> tuple[str, str] | None:
    """Return OpenSSL's word for what went wrong in a handshake, and what to say about it; None: the peer just went."""
    reason = getattr(error, "reason", None)
    if not isinstance(error, ssl.SSLError) or not reason:
        return None
    return reason, ADVICE.get(reason, reason.lower().replace("_", " "))
