"""The head of a request and of an answer: from lines to a record, and from a record to lines.

Where two programs could read the same head in two ways (request smuggling), it is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import parse_qsl

from edgemeta.errors import EdgemetaError
from edgemeta.names import MOST_SAID, shown

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"(?:https?://[!\"$-.0->@-~]+)?(/[!\"$->@-~]*)(?:\?([!\"$-~]*))?")  # visible ASCII without "#"
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(r"[0-9A-Za-z._:\[\]%-]*")
_LENGTH = re.compile(r"[0-9]{1,15}")
_NEEDS_LENGTH = ("POST", "PUT", "PATCH")


class Fault(StrEnum):
    """What can be wrong with a request: a short stable word, also a metric label, and its HTTP status."""

    status: int

    BAD_CHUNK = "bad-chunk", 400
    BAD_EXPECTATION = "bad-expectation", 417
    BAD_HEADER = "bad-header", 400
    BAD_HOST = "bad-host", 400
    BAD_LENGTH = "bad-length", 400
    BAD_LINE_END = "bad-line-end", 400
    BAD_QUERY = "bad-query", 400
    BAD_REQUEST_LINE = "bad-request-line", 400
    BAD_TARGET = "bad-target", 400
    BAD_TRANSFER_ENCODING = "bad-transfer-encoding", 501
    BAD_VERSION = "bad-version", 505
    BODY_TOO_LARGE = "body-too-large", 413
    HEAD_TOO_LARGE = "head-too-large", 431
    INTERNAL_ERROR = "internal-error", 500
    LENGTH_REQUIRED = "length-required", 411
    PLAIN_TO_TLS_PORT = "plain-to-tls-port", 400
    REQUEST_LINE_TOO_LONG = "request-line-too-long", 414
    REQUEST_TIMEOUT = "request-timeout", 408
    TLS_TO_PLAIN_PORT = "tls-to-plain-port", 400
    TOO_MANY_CONNECTIONS = "too-many-connections", 503
    TOO_MANY_HEADERS = "too-many-headers", 431

    def __new__(cls, reason: str, status: int) -> "Fault":
        fault = str.__new__(cls, reason)
        fault._value_, fault.status = reason, status
        return fault


class ProtocolError(EdgemetaError):
    """The peer's bytes are not a request that is served here.

    detail: for people; what cannot be shown in it is escaped here.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        self.fault, self.detail = fault, shown(detail, MOST_SAID)
        super().__init__(f"{fault}: {self.detail}")


@dataclass(frozen=True)
class Request:
    """A request's head.

    target: as sent; path: without the query, percent escapes kept; query: decoded; headers: names in lower case, the
    values of a repeated one joined with ", "; length: of the body in bytes, None when it comes in chunks.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    version: str
    keep_alive: bool
    length: int | None
    expects_continue: bool


RequestLine = tuple[str, bytes, str]  # method, target, "1.0" or "1.1"


def read_head(request_line: RequestLine, lines: Sequence[bytes]) -> Request:
    """Return the request that the header lines, without their ends, make of the request line. Raises ProtocolError."""
    method, target, version = request_line
    headers = read_headers(lines)
    length = _body_length(method, version, headers)
    expect = headers.get("expect", "100-continue").lower()
    if expect != "100-continue":
        raise ProtocolError(Fault.BAD_EXPECTATION, f"Expect: {expect[:40]!r}; only 100-continue is known")
    connection = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    path, query = _split_target(target)
    return Request(
        method=method,
        target=target.decode("ascii"),
        path=path,
        query=query,
        headers=headers,
        version=version,
        keep_alive=version == "1.1" and "close" not in connection,
        length=length,
        expects_continue="expect" in headers and length != 0 and version == "1.1",
    )


def read_request_line(line: bytes) -> RequestLine:
    """Return method, target and version. Raises ProtocolError."""
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[2].startswith(b"HTTP/"):
        raise ProtocolError(Fault.BAD_REQUEST_LINE, f"expected METHOD /path HTTP/1.1, got {line[:40]!r}")
    method, target, version = parts[0].decode("ascii"), parts[1], parts[2][5:]
    if version not in (b"1.0", b"1.1"):
        raise ProtocolError(Fault.BAD_VERSION, f"HTTP/1.1 is spoken here, not {parts[2][:20]!r}")
    if target != b"*" and not _TARGET.fullmatch(target):
        raise ProtocolError(
            Fault.BAD_TARGET, "a target is /path or /path?query in visible ASCII, the rest percent-escaped"
        )
    return method, target, version.decode("ascii")


def _split_target(target: bytes) -> tuple[str, dict[str, str]]:
    """Return the path and the decoded query, in which each name stands once."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return "*", {}
    try:
        pairs = parse_qsl((match[2] or b"").decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise ProtocolError(Fault.BAD_QUERY, "the query is not UTF-8 after percent-decoding") from None
    if len(dict(pairs)) != len(pairs):
        raise ProtocolError(Fault.BAD_QUERY, "a name stands twice in the query")
    return match[1].decode("ascii"), dict(pairs)


def read_headers(lines: Sequence[bytes]) -> dict[str, str]:
    """Return name in lower case -> value. Raises ProtocolError.

    Folded lines and a space before the colon fail as names.
    """
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(raw_name) or not _VALUE.fullmatch(raw_value):
            raise ProtocolError(
                Fault.BAD_HEADER, f"expected Name: value on one line, without control characters, got {line[:40]!r}"
            )
        name, value = raw_name.decode("ascii").lower(), raw_value.strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _body_length(method: str, version: str, headers: Mapping[str, str]) -> int | None:
    """Return the body's length in bytes, or None for a body in chunks. A repeated header fails as a value."""
    if not _HOST.fullmatch(headers.get("host", "" if version == "1.0" else ",")):
        raise ProtocolError(Fault.BAD_HOST, "a request names its host once")
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or version == "1.0":
            raise ProtocolError(
                Fault.BAD_LENGTH, "a body has Content-Length, or Transfer-Encoding in HTTP/1.1, and never both"
            )
        if coding.lower() != "chunked":
            raise ProtocolError(Fault.BAD_TRANSFER_ENCODING, f"only chunked is known, not {coding[:40]!r}")
        return None
    if length is None:
        if method in _NEEDS_LENGTH:
            raise ProtocolError(Fault.LENGTH_REQUIRED, f"{method} needs Content-Length or chunked transfer")
        return 0
    if not _LENGTH.fullmatch(length):
        raise ProtocolError(Fault.BAD_LENGTH, f"Content-Length is one number of bytes, not {length[:40]!r}")
    return int(length)


def encode_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return an answer's status line and headers, with the empty line that ends them.

    Raises ValueError for a header that would end early or start another one: a bug in whoever made it.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode("ascii")]
    for name, value in headers.items():
        raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
        if not _TOKEN.fullmatch(raw_name) or not _VALUE.fullmatch(raw_value):
            raise ValueError(f"header {name!r}: {value!r} cannot be sent")
        lines.append(raw_name + b": " + raw_value)
    return b"\r\n".join([*lines, b"", b""])
