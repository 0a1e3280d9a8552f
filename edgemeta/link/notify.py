"""What a process tells the service manager that started it: that it is ready, and that it is alive."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BEAT_S = 30.0  # where the service manager does not say how often it is to hear that this process is alive
LONGEST_TURN_S = 4 * 3600.0  # of a loop that is not stuck: a slow board may score a whole test set in one turn


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


@contextmanager
def beating() -> Iterator[Callable[[], None]]:
    """Say that this process is alive as long as the context lasts, also while it sleeps or works for long.

    Gives a function that is called in each turn of the process's loop: one whose turn takes hours is stuck.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        yield lambda: None
        return
    began, over = [time.monotonic()], threading.Event()

    def beat() -> None:
        while time.monotonic() - began[0] < LONGEST_TURN_S:
            notify("WATCHDOG=1")
            if over.wait(watchdog_s() or BEAT_S):
                return

    def turn() -> None:
        began[0] = time.monotonic()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield turn
    finally:
        over.set()
        thread.join()
