"""When a device may try again: soon after a first failure, later after each one more, and never all devices at once."""

import math
from collections.abc import Callable

import numpy as np

from edgemeta.device.calls import Away, ClockBehind
from edgemeta.device.done import Done, Kind
from edgemeta.device.guard import NoMemory
from edgemeta.errors import DataError, DivergedError, StorageError

FIRST_S, LONGEST_S = 0.25, 60.0  # between tries: doubled each time, then drawn from the upper half
LONGEST_ASKED_S = 600.0  # for which a gateway may send a device away


class Pace:
    """rng: draws the jitter between tries; clock: seconds."""

    def __init__(self, rng: np.random.Generator, clock: Callable[[], float]) -> None:
        self._rng, self._clock = rng, clock
        self._not_before, self._failures = -math.inf, 0

    @property
    def left_s(self) -> float:
        """For how long nothing is to be tried; 0 or less: now it may."""
        return self._not_before - self._clock()

    def went_well(self) -> None:
        """Begin with short waits again."""
        self._failures = 0

    def asked(self, seconds: float | None) -> None:
        """Wait for as long as the gateway asks; None: it does not."""
        self._not_before = self._clock() + min(seconds or 0.0, LONGEST_ASKED_S)

    def rest(self, asked_s: float, least_s: float) -> float:
        """Wait until the gateway may be asked for work again, at least least_s; return for how long (seconds)."""
        pause = max(min(asked_s, LONGEST_ASKED_S), least_s) * self._rng.uniform(1, 1.25)
        self._not_before = self._clock() + pause
        return pause

    def later(self, kind: Kind, text: str) -> Done:
        """Let nothing be tried for a while, longer each time, and say why."""
        longest = min(FIRST_S * 2.0 ** min(self._failures, 30), LONGEST_S)
        self._failures += 1
        now = self._clock()
        self._not_before = max(self._not_before, now + longest * self._rng.uniform(0.5, 1))
        return Done(kind, text, self._not_before - now)


def trouble(error: BaseException, url: str) -> tuple[Kind, str]:
    """Return what kind of trouble an error is, and what is said of it; url: of the gateway."""
    match error:
        case ClockBehind():
            return Kind.CLOCK, f"waiting for the clock: {error}"
        case Away():
            return Kind.AWAY, f"gateway away ({url}): {error}"
        case StorageError():
            return Kind.STORAGE, str(error)
        case DataError():
            return Kind.DATA, f"waiting for this device's data: {error}"
        case DivergedError():
            return Kind.DIVERGED, str(error)
        case NoMemory() | MemoryError():
            return Kind.MEMORY, str(error) or "out of memory"
    return Kind.AWAY, str(error)
