"""Whether a request was meant for this gateway, by the host and the origin that it names.

A browser on the gateway's machine or network runs pages of strangers. Such a page can send requests here, as whoever
sits there, and by a name of its own that suddenly leads here (DNS rebinding) it could read the answers too. A name of
the page's is none of ours, and a browser says where a page is from.
"""

import ipaddress
import socket
from collections.abc import Collection

from edgemeta.fed.refusal import Reason, Refused
from edgemeta.http.http1 import Request


def names_here(*names: str) -> frozenset[str]:
    """Return this machine's names on its network and some more, as `check_host` wants them."""
    own = socket.gethostname()
    short = own.partition(".")[0]
    return frozenset(name.lower() for name in (own, short, f"{short}.local", *names))


def check_origin(request: Request, names: Collection[str]) -> None:
    """Refuse what a page of another origin sends. names: of this gateway, in lower case."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    scheme, _, authority = origin.lower().partition("://")
    own = scheme in ("http", "https") and authority == request.headers.get("host", "").lower()
    if not own or not _is_known(authority, names):
        raise Refused(Reason.FOREIGN_ORIGIN, f"a page of {origin} cannot speak for who has opened it")


def check_host(request: Request, names: Collection[str]) -> None:
    """Refuse what is sent to a name that is not the gateway's; for what is answered without a token."""
    asked = [request.headers.get("host", "")]
    if not request.target.startswith(("/", "*")):  # http://HOST/path, as a proxy is asked
        asked.append(request.target.split("/")[2])
    for authority in asked:
        if not _is_known(authority, names):
            raise Refused(
                Reason.UNKNOWN_HOST,
                f"{authority} is no name of this gateway: use its address, or tell it that name by "
                f"'edgemeta server --name {_host(authority)}'",
            )


def _is_known(authority: str, names: Collection[str]) -> bool:
    """Say whether a Host header is an address, this machine, or one of the names; browsers always send one."""
    host = _host(authority)
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in ("", "localhost") or host in names or f"*.{host.partition('.')[2]}" in names
    return True


def _host(authority: str) -> str:
    """Return the host of "HOST:PORT", in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    host, _, port = authority.rpartition(":")
    return (host if host and ":" not in host and not port.strip("0123456789") else authority).lower().rstrip(".")
