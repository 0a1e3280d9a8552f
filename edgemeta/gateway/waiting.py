"""How long devices wait for work, and when they come again: where connections are scarce, who waits gives way."""

import asyncio
import time
from contextlib import suppress

from edgemeta.http.listener import Listener

RETRY_S = 5  # for a device that did not wait, or cannot be served now
POLLS_S = 100  # questions for work that a gateway is to answer in a second, when there are too many devices to wait
LOOK_S = 1.0  # between two looks at whether connections are scarce


async def change(changed: asyncio.Event, left_s: float, listener: Listener | None) -> bool:
    """Wait for something to change; return False when the connection that waits is wanted by others."""
    end = time.monotonic() + left_s
    while not changed.is_set() and (left_s := end - time.monotonic()) > 0:
        if listener and not listener.roomy:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, LOOK_S)):
                await changed.wait()
    return True


def again_s(listener: Listener | None, devices: int, *, waited: bool) -> int:
    """Return when a device for which there is no work is to ask again (seconds); waited: it held its request."""
    if listener and not listener.roomy:
        return max(RETRY_S, devices // POLLS_S)
    return 1 if waited else RETRY_S
