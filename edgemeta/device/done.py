"""What a call of `Device.step` did."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """For a program; a plain string compares equal."""

    JOINED = "joined"
    TASK = "task"  # one has come
    TRAINED = "trained"
    EVALUATED = "evaluated"
    DELIVERED = "delivered"
    DISCARDED = "discarded"  # what the gateway does not want
    IDLE = "idle"  # nothing to do
    OVER = "over"  # the run is
    AWAY = "away"  # the gateway is
    CLOCK = "clock"  # this machine's is not set, so that the gateway cannot be trusted
    STORAGE = "storage"  # a full disk, say
    DATA = "data"  # its own cannot be used now: a stick that is not there, say
    MEMORY = "memory"  # too little
    DIVERGED = "diverged"
    WAITING = "waiting"  # too early to try again


@dataclass(frozen=True)
class Done:
    """`kind` for a program, and str() for a person. wait_s: seconds until another call can do something.

    round_ends: with it, all that a round asks of this device is delivered, the update and, where there is one, the
    evaluation that follows.
    """

    kind: Kind
    text: str
    wait_s: float = 0.0
    round_ends: bool = False

    def __str__(self) -> str:
        return self.text
