"""Addresses of this machine, of others, and of gateways."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from edgemeta.errors import ConfigError

PORT = 8742  # a gateway's, unless it is told another one


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
    return Address(parts.scheme == "https", host.replace("%25", "%"), port, parts.path.rstrip("/"))


def with_port(url: str) -> str:
    """Return a URL with the port that a gateway has, where it names none; raises ConfigError when it is none of one."""
    if gateway_address(url).port is not None:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{PORT}").geturl()


def without_zone(host: str) -> str:
    """Return a host without the zone of an IPv6 address ("%eth0"), which means something on this machine only."""
    return host.partition("%")[0] if ":" in host else host


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
