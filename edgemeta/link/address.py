"""Addresses of this machine, of others, and of gateways."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from edgemeta.errors import ConfigError


class Address(NamedTuple):
    """Where a gateway is. port: None for the scheme's own; prefix: what comes before every path, "" or "/..."."""

    encrypted: bool
    host: str
    port: int | None
    prefix: str


def gateway_address(url: str) -> Address:
    """Return where the gateway at `url` is; raises ConfigError when that is no URL of one."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigError(f"'{url}' is no address of a gateway: expected http://HOST:PORT or https://HOST:PORT")
    return Address(parts.scheme == "https", host, port, parts.path.rstrip("/"))


def is_local(host: str) -> bool:
    """Say whether a host, by name or by address, is this machine and no other."""
    return host == "localhost" or is_loopback(host)


def is_loopback(address: str) -> bool:
    """Say whether an IP address is this machine's own; what is no address is not."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
