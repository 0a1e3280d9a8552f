"""HTTP/1.1 requests as the gateway reads them: bytes in, events out; no socket, no clock, no file.

    parser = Parser(Limits())
    parser.receive(b"GET /healthz HTTP/1.1\\r\\nHost: gateway\\r\\n\\r\\n")
    parser.next_event()      # Request(method="GET", path="/healthz", ...)
    parser.next_event()      # EndOfMessage()
    parser.next_event()      # NEED_DATA: call receive, then go on

Whatever the bytes, the only exception is ProtocolError; any other one is a bug. Where two programs could read the same
bytes in two ways (request smuggling), they are refused. How the bytes are cut into pieces never changes the events,
but for where the Data of a body is cut.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from edgemeta.http.head import Fault, ProtocolError, Request, read_head, read_headers, read_request_line

__all__ = ["NEED_DATA", "Data", "EndOfMessage", "Event", "Limits", "Parser", "ProtocolError", "Request"]


@dataclass(frozen=True)
class Limits:
    """What one peer may cost the gateway. The parser enforces bytes and counts, the listener times and connections."""

    max_request_line_bytes: int = 4096  # the longest path of the protocol has some 40 bytes
    max_head_bytes: int = 16_384  # request line and headers: a token and a handful of headers, with much room
    max_headers: int = 64  # curl sends 4, a browser about 15
    max_chunk_line_bytes: int = 256  # a size is at most 16 digits; the rest is for extensions, which are ignored
    max_body_bytes: int = 256 << 20  # 67 million float32 parameters: more than a board of 1 GB can train
    request_deadline_s: float = 300.0  # first to last byte of a request: 8.8 MB at 0.25 Mbit/s takes 282 s
    idle_s: float = 75.0  # a connection that asks nothing; longer than the wait between two polls
    write_stall_s: float = 60.0  # for each block (64 KiB, `exchange.BLOCK`): a link under 1.1 kB/s is given up
    linger_s: float = 2.0  # after a refusal, for a peer that is still sending to see the answer before the cut
    half_close_s: float = 1.0  # for an answer to a peer that sent its request and shut its sending side
    close_grace_s: float = 10.0  # for answers under way when the server stops
    max_connections: int = 512  # in all; fewer where the process may open few files (`budget.places`)
    max_session_connections: int = 4  # a device needs one: more are what broken links have left behind
    overdue_s: float = 10.0  # for a stranger's request or handshake, while others want its place
    files_per_answer: int = 1  # that are open while an answer is sent: a model
    retry_after_s: int = 5  # what a peer beyond the connections is told to wait


@dataclass(frozen=True)
class Data:
    """Some of the body, as it came; never empty."""

    data: bytes


@dataclass(frozen=True)
class EndOfMessage:
    """The body is complete."""


class NeedData(Enum):
    """What next_event returns when it can say nothing before it receives more bytes."""

    NEED_DATA = "need data"


NEED_DATA = NeedData.NEED_DATA
Event = Request | Data | EndOfMessage | NeedData

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class Parser:
    """The requests of one connection, in order.

    Call `receive` only after NEED_DATA: then it holds no more than one head and what was received last. After a
    ProtocolError it raises the same one for ever; after a request that ends the connection it ignores what follows.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer known to hold no line end: dribbled bytes are looked at once
        self._error: ProtocolError | None = None
        self._step: Callable[[], Event | None]
        self._begin()

    def receive(self, data: bytes) -> None:
        """Take in bytes from the peer."""
        self._buffer += data

    def next_event(self) -> Event:
        """Return what the bytes so far say next. Raises ProtocolError."""
        if self._error is not None:
            raise self._error
        try:
            while (event := self._step()) is None:
                pass
        except ProtocolError as error:
            self._error = error
            raise
        return event

    def _begin(self) -> None:
        self._step = self._request_line
        self._head_left = self._limits.max_head_bytes  # of a head, and then of the trailers
        self._lines: list[bytes] = []
        self._body_left = 0

    def _line(self, limit: int, fault: Fault) -> bytes | None:
        """Take a line of at most `limit` bytes with its CR LF, and return it without; None when it is not complete."""
        end = self._buffer.find(b"\n", self._scanned, limit)
        if end < 0:
            if len(self._buffer) >= limit:
                raise ProtocolError(fault, f"no line end within the {limit} bytes that are allowed here")
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._scanned = 0
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise ProtocolError(Fault.BAD_LINE_END, "lines end with CR LF, and neither of the two stands alone")
        return line[:-2]

    def _request_line(self) -> Event | None:
        if self._buffer.startswith(b"\x16\x03"):
            raise ProtocolError(
                Fault.TLS_TO_PLAIN_PORT, "this port speaks plain HTTP: use http:// in the address, or turn on TLS here"
            )
        line = self._line(min(self._limits.max_request_line_bytes, self._head_left), Fault.REQUEST_LINE_TOO_LONG)
        if line is None:
            return NEED_DATA
        first = self._head_left == self._limits.max_head_bytes
        self._head_left -= len(line) + 2
        if line or not first:  # RFC 9112, 2.2: one empty line before a request is ignored
            self._first_line = read_request_line(line)
            self._step = self._header_line
        return None

    def _header_line(self) -> Event | None:
        line = self._line(self._head_left, Fault.HEAD_TOO_LARGE)
        if line is None:
            return NEED_DATA
        self._head_left -= len(line) + 2
        if not line:
            return self._request()
        self._lines.append(line)
        if len(self._lines) > self._limits.max_headers:
            raise ProtocolError(Fault.TOO_MANY_HEADERS, f"at most {self._limits.max_headers} headers are read")
        return None

    def _request(self) -> Request:
        request = read_head(self._first_line, self._lines)
        self._keep_alive = request.keep_alive
        self._body_left = self._limits.max_body_bytes if request.length is None else request.length
        if self._body_left > self._limits.max_body_bytes:
            self._too_large()
        self._step = self._chunk_size if request.length is None else self._fixed_body
        return request

    def _fixed_body(self) -> Event | None:
        return self._data() if self._body_left else self._end()

    def _chunk_size(self) -> Event | None:
        line = self._line(self._limits.max_chunk_line_bytes, Fault.BAD_CHUNK)
        if line is None:
            return NEED_DATA
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise ProtocolError(
                Fault.BAD_CHUNK, f"a chunk starts with its size in hexadecimal digits, not with {line[:20]!r}"
            )
        self._chunk_left = int(match[1], 16)
        if self._chunk_left > self._body_left:
            self._too_large()
        if self._chunk_left:
            self._step = self._chunk_data
        else:
            self._step, self._head_left = self._trailer, self._limits.max_head_bytes
        return None

    def _chunk_data(self) -> Event | None:
        if self._chunk_left:
            event = self._data(self._chunk_left)
            if isinstance(event, Data):
                self._chunk_left -= len(event.data)
            return event
        if bytes(self._buffer[:2]) in (b"", b"\r"):
            return NEED_DATA
        if not self._buffer.startswith(b"\r\n"):
            raise ProtocolError(Fault.BAD_CHUNK, "a chunk's data is longer than its size said")
        del self._buffer[:2]
        self._step = self._chunk_size
        return None

    def _trailer(self) -> Event | None:
        line = self._line(self._head_left, Fault.HEAD_TOO_LARGE)
        if line is None:
            return NEED_DATA
        self._head_left -= len(line) + 2
        if not line:
            return self._end()
        read_headers([line])  # nothing here uses trailers, but what is no header is refused
        return None

    def _data(self, most: int | None = None) -> Data | NeedData:
        if not self._buffer:
            return NEED_DATA
        size = min(len(self._buffer), self._body_left if most is None else most)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._body_left -= size
        return Data(data)

    def _end(self) -> EndOfMessage:
        self._begin()
        if not self._keep_alive:
            self._step = self._ignore
        return EndOfMessage()

    def _ignore(self) -> NeedData:
        self._buffer.clear()
        return NEED_DATA

    def _too_large(self) -> NoReturn:
        limit = self._limits.max_body_bytes
        raise ProtocolError(Fault.BODY_TOO_LARGE, f"a body has at most {limit} bytes here")
