"""What a process tells the service manager that started it: that it is ready, and that it is alive."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send "READY=1" or "WATCHDOG=1" to systemd, where that started this process and wants to hear it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_s() -> float | None:
    """Return how often the service manager is to hear that this process is alive; None: it does not watch it."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 2e6 if limit.isdecimal() and int(limit) else None
