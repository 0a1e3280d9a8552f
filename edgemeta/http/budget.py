"""Who holds the connections of a listener, and who has to go when another one comes: counted here, without any I/O.

Before it has said whose it is a connection is a stranger's, and known by its address alone: where others want places
too, one address has half of all, as many devices may share it behind a router. A session has a few. Whoever comes last
is let in, since nobody knows yet what it wants: connections that say nothing push out one another, and no device.
Devices give way to nobody but to themselves and, between two requests, to other devices.

When all places are taken by those who do not give way, newcomers are let in to a small reserve: what the handler does
not ask a name for (`Budget.claim`) is answered there, devices get a stranger's place, and who is left is told to come
again later.
"""

import ipaddress
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

FOR_THE_RUN = 128  # descriptors: 32 threads with two files each, 32 peers that are being cut, and what is always open
SAYING_S = 0.05  # for which one in the reserve stays, however many come: they wait in the kernel until then
ROOMY = (3, 4)  # of all places, that may be taken by who waits: with more, who waits gives way
RESERVED = 16  # of how many places one is kept for who comes when all others are taken


def places(descriptors: int, most: int, files: int) -> int:
    """Return how many connections there may be at a time, 0 or less when not even the run has what it needs.

    descriptors: that the process may have; most: that are wanted; files: that an answer holds open at most.
    """
    return min(most, (descriptors - FOR_THE_RUN) // (1 + files))


def neighbours(address: str) -> str:
    """Return what stands for all addresses that one peer may have: of IPv6, the lower half is its own to choose."""
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def nothing() -> None:
    """Do nothing."""


@dataclass(eq=False)
class Place:
    """A connection's place. address: the peer's, as `neighbours` has it; cut: ends the connection, soon.

    key: whose it is, None for a stranger's. spare: it is in the reserve. held: False once it is left, or was cut.
    """

    address: str
    cut: Callable[[], object] = nothing
    key: Hashable = None
    spare: bool = False
    held: bool = True


@dataclass
class _Strangers:
    """Of one address. quiet: have a request neither under way nor begun; busy: since when (seconds). In that order."""

    quiet: dict[Place, None] = field(default_factory=dict)
    busy: dict[Place, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.quiet) + len(self.busy)

    def first(self) -> Place:
        """Return who has to go when somebody has to: the first who says nothing, or else the first of all."""
        return next(iter(self.quiet or self.busy))

    def overdue(self, before: float) -> Place | None:
        """Return who gives way by itself: who says nothing, or has been at it since `before` or longer."""
        place = self.first()
        return None if self.busy.get(place, before) > before else place


class Budget:
    """The places of a listener: `most` in all, of one session `each`; a stranger's request is overdue after overdue_s.

    Times are in seconds, of a clock that only goes forward.
    """

    def __init__(self, most: int, each: int, overdue_s: float) -> None:
        self._reserve = max(most // RESERVED, 1)
        self._most = max(most - self._reserve, 1)
        self._half = max(self._most // 2, 1)
        self._each, self._overdue_s = each, overdue_s
        self._taken = 0
        self._strangers: dict[str, _Strangers] = {}
        self._sessions: dict[Hashable, dict[Place, None]] = {}
        self._idle: dict[Place, None] = {}  # of sessions, between two requests
        self._spare: dict[Place, float] = {}  # since when (seconds), in that order

    @property
    def taken(self) -> int:
        """How many connections there are, without those in the reserve."""
        return self._taken

    @property
    def roomy(self) -> bool:
        """Whether there is room enough for connections on which nothing is done for a while."""
        return ROOMY[1] * (self._taken - len(self._idle)) < ROOMY[0] * self._most

    def is_full(self, now: float) -> bool:
        """Say whether nobody should be let in just now: the reserve is full of who has had no time to say anything."""
        full = self._taken >= self._most and len(self._spare) >= self._reserve
        return full and now < next(iter(self._spare.values())) + SAYING_S

    def enter(self, place: Place, now: float) -> None:
        """Let a newcomer in, and cut who has to go for it; `place.spare` says whether that was nobody."""
        if self._taken >= self._most:
            self._make_room(self._to_go(place.address, now - self._overdue_s))
        place.spare = self._taken >= self._most
        if place.spare:
            if len(self._spare) >= self._reserve:
                self._make_room(next(iter(self._spare)))
            self._spare[place] = now
        else:
            self._taken += 1
            self._strangers.setdefault(place.address, _Strangers()).quiet[place] = None

    def _to_go(self, address: str, before: float) -> Place | None:
        """Return who gives way to a newcomer from an address."""
        crowd = self._crowd()
        if crowd is None:
            return next(iter(self._idle), None)
        own = self._strangers.get(address)
        if own and len(own) >= self._half:
            return own.overdue(before)
        return crowd.first() if len(crowd) > self._half else crowd.overdue(before)

    def _crowd(self) -> _Strangers | None:
        return max(self._strangers.values(), key=len, default=None)

    def began(self, place: Place, now: float) -> None:
        """Take note that a request has begun."""
        self._idle.pop(place, None)
        own = self._strangers.get(place.address)
        if own and place in own.quiet:
            del own.quiet[place]
            own.busy[place] = now

    def ended(self, place: Place) -> None:
        """Take note that a request was answered, and no other one has begun."""
        own = self._strangers.get(place.address)
        if own and place in own.busy:
            del own.busy[place]
            own.quiet[place] = None
        elif place.held and place.key is not None:
            self._idle[place] = None

    def claim(self, place: Place, key: Hashable) -> bool:
        """Count a connection as `key`'s, None: as whose it is; return whether it may have its request answered."""
        if not place.held or key is None or key == place.key:
            return place.held and not place.spare
        session, crowd = self._sessions.get(key, {}), self._crowd()
        if len(session) >= self._each or (place.spare and self._taken >= self._most and session):
            self._make_room(next(iter(session)))
        elif place.spare and self._taken >= self._most:
            quiet = next(iter(crowd.quiet), None) if crowd else None  # another one who asks may be a device, too
            self._make_room(quiet or next(iter(self._idle), crowd.first() if crowd else None))
            if self._taken >= self._most:
                return False
        self._drop(place)
        place.key, place.spare, place.held = key, False, True
        self._taken += 1
        self._sessions.setdefault(key, {})[place] = None
        return True

    def leave(self, place: Place) -> None:
        """Give a place up; it may be one that was cut before."""
        if place.held:
            self._drop(place)
        place.cut = nothing  # or the two would keep one another, and the memory of a handshake, until Python looks

    def _make_room(self, place: Place | None) -> None:
        if place is not None:
            self._drop(place)
            place.cut()

    def _drop(self, place: Place) -> None:
        place.held = False
        if place.spare:
            del self._spare[place]
            return
        self._taken -= 1
        if place.key is None:
            own = self._strangers[place.address]
            own.quiet.pop(place, None)
            own.busy.pop(place, None)
            if not own:
                del self._strangers[place.address]
        else:
            self._idle.pop(place, None)
            session = self._sessions[place.key]
            del session[place]
            if not session:
                del self._sessions[place.key]
