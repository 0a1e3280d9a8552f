"""A device's place in a run: what the gateway answered when it joined."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemeta.device.calls import Answer, Away
from edgemeta.device.state import Identity
from edgemeta.errors import ConfigError
from edgemeta.fed.description import Description
from edgemeta.link.address import with_port
from edgemeta.link.joinfile import JoinFile, read_join_file
from edgemeta.link.protocol import PROTOCOL
from edgemeta.nn import Model

NOWHERE = "http://nowhere.invalid"  # the gateway of a device that has none: no such name ever resolves (RFC 2606)
REFUSED = (401, 403, 409, 422, 426)  # answers that asking again would not change


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


def asking(who: Identity) -> bytes:
    """Return the body of a request to join."""
    asked = {"name": who.name, "key": who.key, "partition_id": who.partition_id, "version": PROTOCOL}
    return json.dumps(asked).encode()


def check_let_in(answer: Answer, name: str) -> None:
    """Raise ConfigError when an answer says that the gateway will not have this device."""
    if answer.status in REFUSED and answer.refusal:
        raise ConfigError(f"the gateway does not let '{name}' join: {': '.join(answer.refusal)}")


def told(answer: Answer, *keys: str) -> dict[str, Any]:
    """Return what an answer says; raises Away when that is something else."""
    said = answer.json()
    if not set(keys) <= said.keys():
        raise Away("it answered with something else than a run: is it an edgemeta gateway?")
    return said


def welcome(run: Joined, wanted: int | None, *, another: bool) -> str:
    """Say that a device has joined. wanted: the part of the data that it asked for; another: it was in another run."""
    text = f"joined as participant {run.participant}"
    if wanted not in (None, run.participant):
        text += f", as participant {wanted} was taken; the data is part {wanted} all the same"
    return text + "; it is another run, what was begun for the last one is dropped" * another


def read_description(said: Mapping[str, Any], threads: int = 1) -> Description:
    """Return what a gateway says of its run, checked, its network with so many threads; raises ConfigError."""
    run = Description.from_json(said)
    run.network.threads = threads
    return run


def read_joined(answer: Mapping[str, Any], threads: int = 1) -> Joined:
    """Return the answer to a join, checked, its network with so many threads.

    Raises ConfigError when this device cannot take part in such a run.
    """
    run, participant, session = read_description(answer, threads), answer.get("participant"), answer.get("session")
    if type(participant) is not int or participant < 0 or not isinstance(session, str):
        raise ConfigError("the gateway's answer to a join has no participant and session: install the same version")
    return Joined(participant, session, run)


def joined_before(identity: Identity, threads: int = 1) -> Joined | None:
    """Return the place that a device had when it last ran, or None."""
    try:
        return read_joined({**(identity.joined or {}), "session": identity.session}, threads)
    except ConfigError:
        return None


def joins_by(server: str | None, join: str | Path | None, name: str | None) -> JoinFile:
    """Return what a join file says, or as much as the gateway's URL does, or NOWHERE. Raises ConfigError for both.

    name: what the device is to be called; a join file says that.
    """
    if server is not None and join is not None:
        raise ConfigError("a device takes the gateway's URL or a join file, and not both")
    url = NOWHERE if server is None else with_port(server)
    joins = JoinFile(url, "", "") if join is None else read_join_file(join)
    if join is not None and name not in (None, joins.name):
        raise ConfigError(f"the join file {join} is for '{joins.name}', and not for '{name}': leave out the name")
    return joins
