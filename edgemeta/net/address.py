"""Addresses of this machine and of others."""

import ipaddress


def is_loopback(address: str) -> bool:
    """Say whether an IP address is this machine's own; what is no address is not."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
