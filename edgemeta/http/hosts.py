"""Whether a request is meant for who listens here, by the host and the origin that it names.

A browser on this machine or network runs pages of strangers. Such a page can send requests here, as whoever sits there,
and by a name of its own that suddenly leads here (DNS rebinding) it could read the answers too. A name of the page's is
none of ours, and a browser says where a page is from.
"""

import ipaddress
import socket
from collections.abc import Collection, Iterator

from edgemeta.http.http1 import Request


def names_here(*names: str) -> frozenset[str]:
    """Return this machine's names on its network and some more, in lower case."""
    own = socket.gethostname()
    short = own.partition(".")[0]
    return frozenset(name.lower() for name in (own, short, f"{short}.local", *names))


def is_own_origin(request: Request, names: Collection[str]) -> bool:
    """Say whether a request is of no page, or of one from here. names: of this machine, in lower case."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    scheme, _, authority = origin.lower().partition("://")
    own = scheme in ("http", "https") and authority == request.headers.get("host", "").lower()
    return own and is_known(authority, names)


def asked_of(request: Request) -> Iterator[str]:
    """Yield the authorities (HOST or HOST:PORT) that a request names."""
    yield request.headers.get("host", "")
    if not request.target.startswith(("/", "*")):  # http://HOST/path, as a proxy is asked
        yield request.target.split("/")[2]


def is_known(authority: str, names: Collection[str]) -> bool:
    """Say whether a Host header is an address, this machine, or one of the names; browsers always send one."""
    host = host_of(authority)
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in ("", "localhost") or host in names or f"*.{host.partition('.')[2]}" in names
    return True


def host_of(authority: str) -> str:
    """Return the host of "HOST:PORT", in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    host, _, port = authority.rpartition(":")
    return (host if host and ":" not in host and not port.strip("0123456789") else authority).lower().rstrip(".")
