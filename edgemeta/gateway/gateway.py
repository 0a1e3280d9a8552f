"""A run on a gateway: the coordinator, asked by many devices, one question at a time.

The coordinator writes files, so it is asked in a thread, under one lock; a question that was begun is always ended,
also when the device that asked has gone. Whatever changes the run wakes the devices that wait for work.
"""

import asyncio
import itertools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from edgemeta import disk
from edgemeta.errors import StorageError
from edgemeta.fed.changes import Change
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.curves import Curves
from edgemeta.fed.messages import task_bytes
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.runs import is_followed
from edgemeta.fed.scores import Record
from edgemeta.gateway.orders import follow_orders
from edgemeta.gateway.outgoing import Outgoing, opened
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.standings import waiting_for
from edgemeta.gateway.status import Told
from edgemeta.gateway.tokens import Tokens, digest
from edgemeta.gateway.traffic import DOWN, UP, Traffic
from edgemeta.gateway.twins import Twins, say_copied
from edgemeta.gateway.waiting import change
from edgemeta.http.exchange import Body, Disconnected, off_loop
from edgemeta.http.listener import Listener
from edgemeta.link.trust import Offered
from edgemeta.logs import Failures, Seldom
from edgemeta.names import MOST_SAID, shown
from edgemeta.storage import storing

log = logging.getLogger("edgemeta")

TICK_S, SHORTEST_S = 1.0, 0.01  # how often the coordinator is asked when nothing happens, and when time is up
EXPECTED = (Reason.RUN_OVER, Reason.STOPPING, Reason.STORAGE)  # part of a run's life, or logged by themselves


class Gateway:
    """One run. Methods raise Refused, and StorageError while the disk is full: it goes on when there is room.

    on_round: gets the record of each finished round. stopping: no device is to wait any longer. failures: what nobody
    expected, and the run goes on after it. hosts: the names by which others find it, in lower case.
    asked: returns the run's changes, and the plan with them. earlier: what is shown of the runs before this one.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        roster: Roster,
        tokens: Tokens,
        on_round: Callable[[Record], None] = lambda _: None,
        hosts: Collection[str] = (),
        asked: Callable[[], tuple[Sequence[Change], Plan]] | None = None,
        earlier: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.coordinator, self.roster, self.tokens = coordinator, roster, tokens
        self._on_round, self._asked = on_round, asked
        self.refusals: Counter[str] = Counter()
        self.refused_of: defaultdict[int, Counter[str]] = defaultdict(Counter)  # by participant
        self.curves = Curves(coordinator.directory.history())
        self.earlier = earlier
        self.certificate: Offered | None = None
        self.listener: Listener | None = None  # once it listens
        self.listener_refusals: Counter[str] = Counter()  # the listener's own, once it listens
        self.traffic, self.told = Traffic(), Told()
        self.heard, self.twins = dict[int, float](), Twins()
        self.hosts, self.stopping = hosts, False
        self.failures = Failures(time.monotonic)
        self._lock, self._changed = asyncio.Lock(), asyncio.Event()
        self._waiting = Seldom(after_s=5.0)
        self._storage, self._refused, self._replaced = Seldom(), Seldom(), Seldom()
        self._numbers = itertools.count()
        self._uploads: dict[int, asyncio.Timeout] = {}  # by participant: ends an upload that is arriving
        self._incoming = coordinator.directory.path / "incoming"
        with storing(self._incoming):
            disk.make_folder(self._incoming, 0o700)
            for name in disk.names(self._incoming):  # of uploads that a kill cut off
                disk.remove(self._incoming / name)

    async def join(self, name: str, key: str, wanted: int | None, token: str | None = None) -> tuple[int, str]:
        """Put a device on the roster, and return its participant number and session. token: what proves its name."""
        hashed = "" if token is None else digest(token)
        if token is not None:
            await off_loop(self.tokens.use, name, token)
        async with self._turn():
            await off_loop(self._follow_orders)  # one that was given just now may be about this name
            if hashed:
                self._let_in(name, key, hashed)
            known, kept, over = len(self.roster.names), self.tokens.kept_numbers, self.coordinator.finished
            if (before := self.roster.number(name)) is not None and self.roster.replaces(name, key):
                self.twins.forget(before)
            participant, session = await off_loop(self.roster.join, name, key, wanted, hashed, kept, over)
            self.coordinator.join(participant)
            self.coordinator.own = self.roster.own
            self.heard[participant] = time.monotonic()
        if len(self.roster.names) > known:
            of = f" of {count}" if (count := self.coordinator.plan.config.data.participants) and not over else ""
            late = ", after the run: it gets the model" if over else ""
            facts = {"device": name, "participant": participant, "joined": known + 1}
            log.info(f"%(device)s joined as participant %(participant)d (%(joined)d{of}){late}", facts)
            if wanted not in (None, participant):
                log.warning(
                    "%(device)s takes part %(wanted)d of the data, and participant %(wanted)d was taken",
                    facts | {"wanted": wanted},
                )
            self._wake()  # it may be the one that was waited for
        return participant, session

    def _let_in(self, name: str, key: str, hashed: str) -> None:
        """Refuse whose token was revoked while it waited, and a board that takes turns with another one."""
        if not self.tokens.is_good(name, hashed):
            raise Refused(Reason.REVOKED, "this token was revoked just now: ask for a new join file")
        if self.roster.replaces(name, key) and not self._replaced.due(name, time.monotonic()):
            raise Refused(Reason.TOO_OFTEN, f"'{name}' joined with another key just now: do two boards use its token?")

    def find(self, session: str) -> int | None:
        """Return whose session it is. Where tokens are on, it lives no longer than the token that it was got with."""
        participant = self.roster.find(session)
        return None if participant is None or not self._may(participant) else participant

    def heard_from(self, participant: int, number: str) -> None:
        """Take note of the number that a device drew when it started; say when two boards speak as one."""
        if self.twins.heard(participant, number):
            say_copied(self.roster.name(participant))

    async def work(self, session: str | None, wait_s: float, wake_s: float = 0.0) -> Outgoing | None:
        """Return a task of who has this session, or None when there is none for it within wait_s seconds.

        wake_s: for how long it sleeps before it comes again; 0: it does not.
        Its files are opened while nobody else can ask, as the next round removes them; the caller closes them.
        """
        end = time.monotonic() + wait_s
        while True:
            changed = self._changed  # taken before asking: what changes after that is not missed
            async with self._turn() as coordinator:
                participant = self.participant(session)
                task = await off_loop(self.coordinator.work, participant, time.monotonic(), wake_s)
                self.heard[participant] = time.monotonic()
                if task is not None:
                    outgoing = opened(task.header(coordinator.sizes), coordinator)
                    self.traffic.count(participant, DOWN, task_bytes(outgoing.header, coordinator.sizes))
                    return outgoing
            if (over := self.coordinator.finished) and not is_followed(self.coordinator.directory.path):
                raise Refused(Reason.RUN_OVER, "the run is over: the model is at /v1/model")
            left_s = end - time.monotonic()
            if over or self.stopping or left_s <= 0 or not await change(changed, left_s, self.listener):
                return None  # for now: where another run follows, this gateway is about to serve that one

    async def deliver(self, session: str | None, round_number: int, body: Body) -> None:
        """Accept an update: when this returns, it is on disk and will count, or has counted already."""
        participant = self.participant(session)
        self.heard[participant] = time.monotonic()
        if not self.coordinator.is_new(Stage.TRAIN, participant, round_number):
            return  # and what is refused raised: neither wears the card out
        path = self._incoming / f"{participant:06d}-{next(self._numbers)}"
        try:
            async with self._arriving(participant):
                self.traffic.count(participant, UP, await body.save(path, self.coordinator.most_update_bytes))
            async with self._turn():
                self.participant(session)  # which may have ended meanwhile
                await off_loop(self.coordinator.deliver, participant, round_number, path, time.monotonic())
        finally:
            with suppress(OSError):  # then it is removed at the next start
                await off_loop(disk.remove, path)  # refused, a repeated one, or cut off

    async def deliver_evaluation(self, session: str | None, round_number: int, body: Body, max_bytes: int) -> None:
        """Accept scores of the current model."""
        participant = self.participant(session)
        self.heard[participant] = time.monotonic()
        scores = await body.read(max_bytes)
        self.traffic.count(participant, UP, len(scores))
        async with self._turn():
            self.participant(session)
            await off_loop(self.coordinator.deliver_evaluation, participant, round_number, scores, time.monotonic())

    async def diverged(self, session: str | None, round_number: int) -> None:
        """Take note that the model of a round diverges on a participant."""
        participant = self.participant(session)
        self.heard[participant] = time.monotonic()
        async with self._turn():
            self.participant(session)
            await off_loop(self.coordinator.diverged, participant, round_number, time.monotonic())

    async def watch(self) -> None:
        """Act on deadlines and orders, retry what a full disk kept from happening, say what is waited for."""
        over = False
        while True:
            changed, pause_s = self._changed, TICK_S
            with self.failures.survived("tick"):
                pause_s = await self._tick()
            if self.coordinator.finished and not over:
                log.info("the run is over; its model is answered until another one begins ('edgemeta run new')")
            over = self.coordinator.finished
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()

    async def _tick(self) -> float:
        """Do what time brings, and return for how long there is nothing more to do."""
        if not self.coordinator.finished and self._waiting.due("", time.monotonic()):
            awaited = waiting_for(self.coordinator, self.roster.name, time.monotonic())
            facts = {"round": self.coordinator.progress.round, "missing": len(self.coordinator.missing)}
            log.info("%(event)s", {"event": awaited, **facts})
        try:
            async with self._turn() as coordinator:
                await off_loop(self._follow_orders)
                await off_loop(coordinator.tick, time.monotonic())
        except (StorageError, OSError) as error:
            self.storage_failed(error)
            return TICK_S
        left_s = coordinator.seconds_left(time.monotonic()) if coordinator.progress.cohort else TICK_S
        return min(max(left_s, SHORTEST_S), TICK_S)

    def stop(self) -> None:
        """Send the devices that wait for work away."""
        self.stopping = True
        self._wake()

    def refused(self, refusal: Refused, participant: int | None, peer: str) -> None:
        """Count a refusal, and log it, less and less often for the same reason; participant: None for strangers."""
        self.refusals[refusal.reason] += 1
        if participant is not None and refusal.reason not in EXPECTED:
            self.refused_of[participant][refusal.reason] += 1
        due = refusal.reason not in EXPECTED and self._refused.due((participant, refusal.reason), time.monotonic())
        if due:
            who = {"peer": peer} if participant is None else {"device": self.roster.name(participant)}
            (key,) = who
            log.warning(
                f"refused %({key})s (%(reason)s): %(detail)s", {**who, "reason": refusal.reason, "detail": str(refusal)}
            )

    def storage_failed(self, error: Exception) -> None:
        """Log, less and less often, that something could not be written."""
        if self._storage.due("", time.monotonic()):
            log.error("%s; the run goes on when that works again", shown(str(error), MOST_SAID))

    def _follow_orders(self) -> None:
        """Do what the operator has asked for since the last time: of the run, and of devices."""
        if self._asked is not None:
            self.coordinator.follow(*self._asked(), time.monotonic())
        for participant in follow_orders(self.coordinator, self.roster, self.tokens, time.monotonic()):
            run: Any = self.coordinator
            for known in (self.heard, self.refused_of, self.traffic.of, run.classes, run.shares):
                known.pop(participant, None)
            self.twins.forget(participant)
            self.coordinator.own = self.roster.own

    def _may(self, participant: int) -> bool:
        tokens, roster = self.tokens, self.roster
        return not tokens.required or tokens.is_good(roster.name(participant), roster.token(participant))

    def participant(self, session: str | None) -> int:
        """Return whose session it is, or raise Refused."""
        participant = None if session is None else self.find(session)
        if participant is None:
            raise Refused(
                Reason.UNKNOWN_SESSION,
                "no session, or one that ended with its device token: join, then send 'Authorization: Bearer SESSION'",
            )
        return participant

    @asynccontextmanager
    async def _arriving(self, participant: int) -> AsyncIterator[None]:
        """Have a device's newest upload cut an earlier one off: half of one is all that it can leave on the disk."""
        if earlier := self._uploads.get(participant):
            earlier.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(None) as patience:
                self._uploads[participant] = patience
                yield
        except TimeoutError:
            if patience.expired():
                raise Disconnected from None
            raise
        finally:
            if self._uploads.get(participant) is patience:
                del self._uploads[participant]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Coordinator]:
        """Hold the coordinator, and tell of what has changed at the end, also when the device that asked has gone."""
        async with self._lock:
            before = self.coordinator.progress
            try:
                yield self.coordinator
            finally:
                after = self.coordinator.progress
                if after is not before:
                    self._wake()  # whatever else fails: who waits for work is not to wait in vain
                    self._waiting = Seldom(after_s=5.0)
                if after.round > before.round:
                    self._tell(before)

    def _tell(self, before: Progress) -> None:
        """Tell of the rounds that were finished since then."""
        with self.failures.survived("hook"):
            for record in self.coordinator.directory.history(after=before.history):
                with self.failures.survived("hook"):
                    if record["round"] >= before.round:
                        self.curves.add(record)
                        self._on_round(record)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
