"""Who has joined a run: a name, the secret that proves it, and the participant number that it keeps for good.

A device makes its key and stores it before it first joins, so an answer that is lost costs nothing: the same name with
the same key joins again and gets the same number and the same session. On disk are hashes of keys and sessions only.

Where a device token proves the name, a new key takes the old one's place: the device lost its card, or was replaced.
And the number that it asks for is then a wish: who finds it taken gets another one, so that nobody can keep it out.
"""

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from edgemeta.fed.refusal import Reason, Refused
from edgemeta.storage import read_kept, write_kept

log = logging.getLogger("edgemeta")

NOTHING: Mapping[str, int] = MappingProxyType({})
FORMAT = "edgemeta-roster/3"  # 1 had no wanted, 2 no used


@dataclass(frozen=True)
class Member:
    """A device that has joined. key, session, token: sha256 of the secrets, in hexadecimal digits; token: or "".

    Without a key it has yet to come: it is to take the place of another one.
    wanted: the number that it asked for, where it got another one. cut: it takes a part of a data set that the run
    cuts; else it brings its own data.
    """

    participant: int
    key: str
    session: str
    token: str = ""
    wanted: int | None = None
    cut: bool = False


@dataclass(frozen=True)
class Kept:
    """The roster's file. devices: by name. used: the numbers below it were somebody's, or are."""

    salt: str
    devices: dict[str, Member]
    used: int = 0


class Roster:
    """The devices of a run of so many participants, kept in a file; raises StorageError when it cannot be written.

    participants: 0 for as many as join; then no number is ever used again.
    salt: random text, drawn by the caller, that makes the sessions of a new roster its own.
    """

    def __init__(self, path: Path, participants: int, salt: str) -> None:
        self._path, self._count = path, participants
        kept = read_kept(path, Kept, FORMAT, "restore it, or remove it and every device joins anew")
        kept = kept or Kept(salt, {})
        self._salt, self._members = kept.salt, kept.devices
        self._used = max([kept.used, *(member.participant + 1 for member in self._members.values())])
        self._index()

    @property
    def names(self) -> Mapping[int, str]:
        """Participant number -> name, of those who have joined."""
        return self._names

    @property
    def own(self) -> set[int]:
        """The participants that bring their own data."""
        return {member.participant for member in self._members.values() if not member.cut}

    def name(self, participant: int) -> str:
        """Return what people call a participant, whether it has joined or not."""
        return self._names.get(participant, f"participant {participant}")

    def number(self, name: str) -> int | None:
        """Return the participant number of a device, None before it has joined."""
        member = self._members.get(name)
        return None if member is None else member.participant

    @property
    def free(self) -> int | None:
        """How many may still join, None for as many as do."""
        return len(set(range(self._count)) - self._names.keys()) if self._count else None

    def join(
        self,
        name: str,
        key: str,
        wanted: int | None = None,
        token: str = "",
        kept: Mapping[str, int] = NOTHING,
        over: bool = False,
    ) -> tuple[int, str]:
        """Return the participant number of a device and its session, new or the same as before.

        wanted: the number that it asks for; without one the lowest free one. token: hash of the device token that
        proves the name. kept: device -> the number that is kept for it. over: the run is, and whoever comes now gets
        its model, with a number that is nobody's in the run where none is free. Raises Refused.
        """
        member = self._members.get(name)
        if member is None:
            number = self._free(name, wanted, kept, proven=token != "", over=over)
            other, session = None if wanted == number else wanted, _hash(self._session(name, key))
            member = Member(number, _hash(key), session, token, wanted=other, cut=wanted is not None)
            self._keep({**self._members, name: member})
        elif member.key and not token and not hmac.compare_digest(member.key, _hash(key)):
            raise Refused(
                Reason.NAME_IN_USE,
                f"another device is '{name}' (it has another key): choose another name, by --name NAME "
                "(name=), or, where this board is to take its place, say so on the gateway: "
                f"'edgemeta devices replace {name} {name}'",
            )
        elif wanted not in (None, member.participant, member.wanted):
            raise Refused(
                Reason.OTHER_PARTITION,
                f"'{name}' is participant {member.participant} of this run, and cannot become {wanted}",
            )
        elif token or not member.key:
            cut = member.cut if member.key else wanted is not None
            proven = replace(member, key=_hash(key), session=_hash(self._session(name, key)), token=token, cut=cut)
            if proven != member:
                if member.key not in ("", proven.key):
                    log.warning(
                        "'%(device)s' joins with a new key: its card was lost, or two boards have its token",
                        {"device": name},
                    )
                self._keep({**self._members, name: proven})
        return member.participant, self._session(name, key)

    def replaces(self, name: str, key: str) -> bool:
        """Say whether this key would take the place of another one."""
        member = self._members.get(name)
        return member is not None and member.key != "" and not hmac.compare_digest(member.key, _hash(key))

    def remove(self, name: str) -> None:
        """Let go of a device: its session is nobody's any more, and its number is free where numbers are."""
        self._keep({other: member for other, member in self._members.items() if other != name})

    def replace(self, name: str, new: str) -> None:
        """Give a device's number to another one, which may have its name, and joins with a key of its own."""
        member = replace(self._members[name], key="", session="", token="", wanted=None)
        self._keep(
            {new if other == name else other: member if other == name else one for other, one in self._members.items()}
        )

    def check_name(self, name: str, new: str) -> None:
        """Raise Refused when a device cannot take another one's place, as it has one."""
        if new != name and new in self._members:
            raise Refused(
                Reason.NAME_IN_USE,
                f"'{new}' has joined as participant {self.number(new)}, and cannot have the place of '{name}' too: "
                f"'edgemeta devices remove {name}' has the run go on without it",
            )

    def token(self, participant: int) -> str:
        """Return the hash of the device token with which a participant got its session, "" when it was without one."""
        return self._members[self._names[participant]].token

    def find(self, session: str) -> int | None:
        """Return whose session it is; looked up by its hash, so how long that takes says nothing about sessions."""
        return self._sessions.get(_hash(session))

    def _free(self, name: str, wanted: int | None, kept: Mapping[str, int], *, proven: bool, over: bool) -> int:
        """Return a newcomer's number: the one that is kept for it, else the one that it wants, else the lowest free."""
        if not self._count and wanted is not None:
            raise Refused(
                Reason.BAD_PARTITION_ID,
                f"partition_id is {wanted}: in this run as many as join take part, with their own data: leave it out",
            )
        if not self._count:
            return self._used
        if wanted is not None and not 0 <= wanted < self._count:
            raise Refused(Reason.BAD_PARTITION_ID, f"partition_id is {wanted}: expected 0 to {self._count - 1}")
        reserved = {number: other for other, number in kept.items() if other != name}
        taken, own = reserved | dict(self._names), kept.get(name, wanted)
        free = [k for k in range(self._count) if k not in taken]
        if own in free:
            return own
        if over and not free:
            return max(self._used, self._count)
        way = "'edgemeta devices replace {} NEW' on the gateway gives its place to another board"
        if wanted in taken and (wanted in reserved or not proven):
            of = taken[wanted]
            raise Refused(
                Reason.PARTITION_TAKEN, f"participant {wanted} is '{of}': ask for another one, or {way.format(of)}"
            )
        if not free:
            raise Refused(
                Reason.RUN_FULL,
                f"all {self._count} participants of this run have joined: where a board is gone for good, "
                f"{way.format('OLD')} ('edgemeta devices' lists them)",
            )
        return free[0]

    def _session(self, name: str, key: str) -> str:
        return hmac.digest(key.encode(), f"{self._salt} {name}".encode(), "sha256").hex()

    def _keep(self, members: dict[str, Member]) -> None:
        """Make `members` the roster, on disk first and then here."""
        used = max([self._used, *(member.participant + 1 for member in members.values())])
        write_kept(self._path, Kept(self._salt, members, used), FORMAT)
        self._members, self._used = members, used
        self._index()

    def _index(self) -> None:
        self._names = {member.participant: name for name, member in self._members.items()}
        self._sessions = {member.session: member.participant for member in self._members.values()}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
