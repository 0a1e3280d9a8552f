"""What a handler works with: the body of a request, as it comes, and the response that it returns.

Everything that can wait for a disk runs in a thread, a block at a time: while one upload is flushed to a slow card,
the event loop answers others, and a hundred transfers cost a hundred blocks of memory.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from edgemeta import disk
from edgemeta.errors import EdgemetaError, StorageError
from edgemeta.http.head import Fault, encode_head
from edgemeta.http.http1 import Data, Event, ProtocolError, Request
from edgemeta.storage import write_block

BLOCK = 1 << 16  # bytes moved at once: larger ones are hardly faster, and each transfer under way holds one or two
BODILESS = (204, 304)  # statuses whose answers end with the head

P = ParamSpec("P")
T = TypeVar("T")


class Disconnected(EdgemetaError):
    """The peer went away: nobody is left to answer."""


@dataclass(frozen=True)
class FilePart:
    """`length` bytes of a file from `offset`, read while they are sent.

    source: a path, or an open descriptor, which is duplicated: its owner may close it once the handler has returned.
    """

    source: Path | int
    length: int
    offset: int = 0


@dataclass(frozen=True)
class Response:
    """An answer. Its length, and whether the connection stays open, are added to the headers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Sequence[bytes | memoryview | FilePart] = b""

    @property
    def parts(self) -> Sequence[bytes | memoryview | FilePart]:
        """The body as a sequence, whichever way it was given."""
        return [self.body] if isinstance(self.body, bytes) else self.body


def json_answer(status: int, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of one JSON object."""
    body = json.dumps(value).encode() + b"\n"
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, body)


def refusal(fault: Fault, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that says why: JSON {"error": the fault's word, "detail": detail}."""
    return json_answer(fault.status, {"error": fault, "detail": detail}, headers)


class Body:
    """A request's body, taken from the connection as the handler asks for it. peer: the sender's IP address.

    claim: by it the handler says whose request this is, None: a stranger's, before it does more than say that it is
    alive. It raises ProtocolError when there is no room for whoever that is.
    What a handler leaves unread is thrown away after its answer. Methods raise ProtocolError (408 too slow, 413 too
    large, 400 damaged), which answers the request if the handler lets it pass, and Disconnected.
    """

    def __init__(
        self,
        request: Request,
        peer: str,
        receive: Callable[[], Awaitable[Event]],
        send_continue: Callable[[], Awaitable[None]],
        claim: Callable[[Hashable], None],
    ) -> None:
        self.peer, self.claim = peer, claim
        self.withheld = request.expects_continue  # the peer keeps it back until it is told to go on
        self._announced = request.length or 0
        self._taken = 0
        self._complete = False
        self._receive = receive
        self._send_continue = send_continue

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body, of at most max_bytes."""
        body = bytearray()
        while piece := await self._next(max_bytes):
            body += piece
        return bytes(body)

    async def save(self, path: Path, max_bytes: int) -> int:
        """Write the body, of at most max_bytes, to `path` and flush it to the disk; return its size in bytes.

        Nothing is left at `path` when it raises; also StorageError. The folder is not flushed: rename, then do that.
        """
        size, block, made, more = 0, bytearray(), None, True
        try:
            while more:
                piece = await self._next(max_bytes)
                more = piece != b""
                size += len(piece)
                block += piece
                del piece  # an upload that waits for the disk then holds its block, and no second copy
                if len(block) >= BLOCK or not more:
                    # Opened for each block: a slow upload holds no descriptor, and a cancelled one has none to close.
                    made = await off_loop(write_block, path, block, made, last=not more)
                    block = bytearray()
        except BaseException:
            await off_loop(_remove, path)
            raise
        return size

    async def discard(self) -> None:
        """Throw away what is left."""
        while not self._complete:
            self._complete = not isinstance(await self._receive(), Data)

    async def _next(self, max_bytes: int) -> bytes:
        """Return the next piece, or b"" at the end."""
        if self._announced > max_bytes:
            raise _too_large(max_bytes)
        if self.withheld:
            await self._send_continue()
            self.withheld = False
        if self._complete:
            return b""
        event = await self._receive()
        if not isinstance(event, Data):
            self._complete = True
            return b""
        self._taken += len(event.data)
        if self._taken > max_bytes:
            raise _too_large(max_bytes)
        return event.data


def _too_large(max_bytes: int) -> ProtocolError:
    return ProtocolError(Fault.BODY_TOO_LARGE, f"at most {max_bytes} bytes are taken for this request")


def _remove(path: Path) -> None:
    with suppress(OSError):
        disk.remove(path)


def open_files(response: Response, files: ExitStack) -> Response:
    """Return the response with a descriptor of its own for each file part; `files` closes them. Raises OSError."""

    def opened(part: FilePart) -> FilePart:
        source = part.source
        descriptor = os.dup(source) if isinstance(source, int) else disk.open_file(source)
        files.callback(os.close, descriptor)
        return replace(part, source=descriptor)

    return replace(response, body=[opened(part) if isinstance(part, FilePart) else part for part in response.parts])


async def blocks(part: bytes | memoryview | FilePart) -> AsyncGenerator[bytes | memoryview, None]:
    """Yield an opened part of a body, at most BLOCK bytes at a time.

    Raises StorageError for a file that cannot be read, or is too short.
    """
    if isinstance(part, FilePart):
        assert isinstance(part.source, int)
        end = part.offset + part.length
        for start in range(part.offset, end, BLOCK):
            yield await off_loop(_read, part.source, min(BLOCK, end - start), start)
    else:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), BLOCK):
            yield view[start : start + BLOCK]


def _read(descriptor: int, size: int, offset: int) -> bytes:
    try:
        data: bytes = disk.system.pread(descriptor, size, offset)
    except OSError as error:
        raise StorageError(f"a file that is sent cannot be read: {error.strerror}") from error
    if len(data) < size:
        raise shrunk(offset + len(data))
    return data


def shrunk(end: int) -> StorageError:
    """Return the error of a file that became shorter while it was sent."""
    return StorageError(f"a file ended at byte {end} while it was sent; files being sent must not shrink")


def response_head(response: Response, keep_alive: bool) -> bytes:
    """Return the encoded head. Raises ValueError for a header that cannot be sent."""
    headers = dict(response.headers)
    if response.status not in BODILESS:
        sizes = (part.length if isinstance(part, FilePart) else memoryview(part).nbytes for part in response.parts)
        headers["Content-Length"] = str(sum(sizes))
    if not keep_alive:
        headers["Connection"] = "close"
    return encode_head(response.status, headers)


async def off_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `work` in a thread. When cancelled, wait for its end: no file is pulled away under a write."""
    future = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not complain that nobody did
        raise
