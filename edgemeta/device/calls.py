"""A device's side of HTTP: one connection to the gateway, kept open between calls.

Whatever a network or a gateway can do to a call ends in an Answer or in Away. Bodies that are files are sent and
received in blocks, and a file is whole or absent.
"""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from typing import Any

from edgemeta.errors import ConfigError, EdgemetaError
from edgemeta.link.address import gateway_address, without_zone
from edgemeta.link.protocol import NUMBER, SECONDS_LEFT
from edgemeta.link.trust import clock_is_behind, device_context, explained
from edgemeta.names import MOST_SAID, shown
from edgemeta.reading import Reader
from edgemeta.storage import write_atomic

CONNECT_S = 10.0  # a gateway on the same network answers at once or not at all
SILENCE_S = 30.0  # for which a gateway may send nothing: it waits for its disk before it acknowledges
BLOCK = 1 << 16  # bytes of a body moved at once
MAX_ANSWER_BYTES = 1 << 20  # of JSON: a list of class names is the longest that there is


class Away(EdgemetaError):
    """The gateway cannot be reached, or what answers is none: try again later."""


class ClockBehind(Away):
    """This machine's time is before the gateway's certificate was made: it cannot be trusted until the time is set."""


@dataclass(frozen=True)
class Answer:
    """body: what came with it, unless that went to a file. retry_after_s: when the gateway wants to be asked again.

    seconds_left: how long it waits for what it has asked for.
    """

    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    seconds_left: float | None = None

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; raises Away when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Away(f"it answered {self.status} with something that is no JSON object: is it an edgemeta gateway?")
        return value

    @property
    def refusal(self) -> tuple[str, str] | None:
        """The (reason, detail) with which a gateway refuses, or None: then it is no gateway that refuses."""
        try:
            answer = self.json()
        except Away:
            return None
        if "error" not in answer:
            return None
        return shown(str(answer["error"]), MOST_SAID), shown(str(answer.get("detail", "")), MOST_SAID)


class Gateway:
    """The gateway at a URL. trust: the PEM certificates that it is trusted by, and no others, where the URL is https://.

    upload_kb_s: the most that a file is sent at, in 1,000 bytes a second. number: what this device drew when it
    started, by which a gateway notices two boards that have one card. Raises ConfigError when that is no URL of one, or
    the certificates are none.
    """

    def __init__(self, url: str, trust: str = "", upload_kb_s: float | None = None, number: str = "") -> None:
        self.url, self._upload_kb_s, self._number = url, upload_kb_s, {NUMBER: number} if number else {}
        encrypted, host, port, self._prefix = gateway_address(url)
        if encrypted and not trust:
            raise ConfigError(
                f"'{url}' takes a join file, which says which certificate to trust: "
                "'edgemeta enroll' on the gateway makes one, use it as --join FILE"
            )
        self._host = host
        self._connection = (
            _Secure(host, port, timeout=CONNECT_S, blocksize=BLOCK, context=device_context(trust))
            if encrypted
            else HTTPConnection(host, port, timeout=CONNECT_S, blocksize=BLOCK)
        )

    def close(self) -> None:
        """Close the connection; another call opens it again."""
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        session: str = "",
        body: bytes | Path = b"",
        into: Path | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        wait_s: float = 0.0,
    ) -> Answer:
        """Make a request and return its answer; raises Away, and StorageError when a file cannot be read or written.

        body: bytes of JSON, or a file of tensors. into: where the body of an answer with status 200 goes, atomically.
        wait_s: how long the gateway was asked to hold the answer back. Every request may be repeated without harm, and
        is once, when the kept connection turns out to have been closed meanwhile.
        """
        kept = self._connection.sock is not None
        try:
            response = self._ask(method, path, session, body, wait_s, again=kept)
            answer = self._receive(response, into, max_bytes)
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise self._away(error) from error
        except BaseException:  # what is left of a broken exchange must not be taken for the next answer
            self.close()
            raise
        return answer

    def _ask(
        self, method: str, path: str, session: str, body: bytes | Path, wait_s: float, *, again: bool
    ) -> HTTPResponse:
        connection = self._connection
        headers = self._number | ({"Authorization": f"Bearer {session}"} if session else {})
        if "%" in self._host:  # the zone of an address is this machine's own affair
            headers["Host"] = f"[{without_zone(self._host)}]:{connection.port}"
        with ExitStack() as files:
            content: bytes | Reader | None = (
                body or None if isinstance(body, bytes) else files.enter_context(Reader(body))
            )
            if content is not None:
                size = len(content) if isinstance(content, bytes) else content.status().st_size
                kind = "application/json" if isinstance(content, bytes) else "application/octet-stream"
                headers |= {"Content-Length": str(size), "Content-Type": kind}
            paced: Any = content
            if self._upload_kb_s and isinstance(content, Reader):
                paced = _Paced(content, 1000 * self._upload_kb_s)
            try:
                if connection.sock is None:
                    connection.connect()
                connection.sock.settimeout(SILENCE_S + wait_s)
                try:
                    connection.request(method, self._prefix + path, paced, headers)
                except (BrokenPipeError, ConnectionResetError):
                    if again:
                        raise
                    return connection.getresponse()  # refused before all of it was sent: the answer may be there
                return connection.getresponse()
            except (ConnectionError, ssl.SSLError):  # http.client's RemoteDisconnected too
                connection.close()
                if not again:
                    raise
        return self._ask(method, path, session, body, wait_s, again=False)

    def _away(self, error: Exception) -> Away:
        if isinstance(error, ssl.SSLError):
            text = explained(error, self._host)
            return ClockBehind(text) if clock_is_behind(error) else Away(text)
        if isinstance(error, RemoteDisconnected):
            return Away("it closed the connection without an answer")
        return Away(_said(error))

    def _receive(self, response: HTTPResponse, into: Path | None, max_bytes: int) -> Answer:
        status, retry_after_s = response.status, _seconds(response, "Retry-After")
        seconds_left = _seconds(response, SECONDS_LEFT)
        if into is not None and status == 200:
            write_atomic(into, _blocks(response, max_bytes))
            return Answer(status, b"", retry_after_s, seconds_left)
        return Answer(status, b"".join(_blocks(response, MAX_ANSWER_BYTES)), retry_after_s, seconds_left)


class _Secure(HTTPSConnection):
    """A connection that checks the certificate against the host without a zone."""

    def __init__(self, *place: Any, context: ssl.SSLContext, **how: Any) -> None:
        super().__init__(*place, context=context, **how)
        self._trust = context

    def connect(self) -> None:
        HTTPConnection.connect(self)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=without_zone(self.host))


class _Paced:
    """A file that is read no faster than so many bytes a second."""

    def __init__(self, file: Reader, bytes_s: float) -> None:
        self._file, self._bytes_s = file, bytes_s

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        time.sleep(len(block) / self._bytes_s)
        return block


def _seconds(response: HTTPResponse, header: str) -> float | None:
    text = response.headers.get(header, "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None


def _blocks(response: HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """Yield the body; raises Away in the place of all network errors, as the file it goes to has errors of its own."""
    taken = 0
    try:
        while block := response.read(BLOCK):
            taken += len(block)
            if taken > max_bytes:
                raise Away(f"its answer is longer than the {max_bytes} bytes that are expected here")
            yield block
    except (OSError, HTTPException, ValueError) as error:
        raise Away(_said(error)) from error
    if response.length:
        raise Away(f"the connection broke {response.length} bytes before the end of an answer")


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
