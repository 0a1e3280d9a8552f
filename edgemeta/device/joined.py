"""A device's place in a run: what the gateway answered when it joined."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemeta.device.state import Identity
from edgemeta.errors import ConfigError
from edgemeta.fed.description import Description
from edgemeta.nn import Model


@dataclass(frozen=True)
class Joined:
    """participant, session: who this device is in it, and what proves that."""

    participant: int
    session: str
    run: Description

    @property
    def network(self) -> Model:
        """The run's network."""
        return self.run.network


def read_joined(answer: Mapping[str, Any], threads: int = 1) -> Joined:
    """Return the answer to a join, checked, its network with so many threads.

    Raises ConfigError when this device cannot take part in such a run.
    """
    run, participant, session = Description.from_json(answer), answer.get("participant"), answer.get("session")
    if type(participant) is not int or participant < 0 or not isinstance(session, str):
        raise ConfigError("the gateway's answer to a join has no participant and session: install the same version")
    run.network.threads = threads
    return Joined(participant, session, run)


def joined_before(identity: Identity, threads: int = 1) -> Joined | None:
    """Return the place that a device had when it last ran, or None."""
    try:
        return read_joined({**(identity.joined or {}), "session": identity.session}, threads)
    except ConfigError:
        return None
