"""A seeded world: a gateway and its devices, honest and hostile ones, with simulated clock, network and kills.

The gateway is the real one, from the routes down to the run directory; the network between it and the devices
(`inhabitants`) delays, loses, repeats and reorders messages, devices are away for a while and lose what they had, and
the gateway is killed between any two operations on files. What it acknowledges is written down by `judge`, which works
out each model by itself. All that happens follows from the seed: `make world SEED=7` shows it again.
"""

import asyncio
import heapq
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from disks import Disk, Killed, in_place_of_the_system
from gateways import NETWORK
from inhabitants import HOSTILE, Ask, Inhabitant, Life, life
from judge import Judge

from edgemeta.config import config_from
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.plan import Plan, resolve
from edgemeta.gateway.gateway import Gateway
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.routes import answer
from edgemeta.gateway.tokens import Tokens, enroll
from edgemeta.http.exchange import Body, FilePart
from edgemeta.http.http1 import Data, EndOfMessage, Limits, Parser, ProtocolError, Request

DEADLINE_S, TIMEOUT_S = 30.0, 10.0


class World:
    """Everything that follows from a seed. kinds: of the devices, drawn when None; calm: nothing fails or is slow."""

    def __init__(self, seed: int, folder: Path, kinds: list[str] | None = None, rounds: int = 0, calm: bool = False):
        self.rng, self.folder, self.now, self.calm = np.random.default_rng(seed), folder, 0.0, calm
        rng = self.rng
        if kinds is None:
            honest = int(rng.integers(2, 7))
            kinds = ["honest"] * honest + rng.choice(list(HOSTILE), int(rng.integers(0, (honest + 1) // 2))).tolist()
        rng.shuffle(kinds)
        n, honest = len(kinds), kinds.count("honest")
        self.loss, self.again = (0.0, 0.0) if calm else rng.uniform(0, 0.1, 2)
        tokens, least = bool(rng.integers(2)) or "joining" in kinds, int(rng.integers(1, honest + 1))
        optimizer = str(rng.choice(["sgd", "momentum"]))
        self.momentum = 0.9 if optimizer == "momentum" else 0.0
        settings = {
            "seed": seed,
            "data": {"participants": n},
            "phases": [{"rounds": rounds or int(rng.integers(5, 25)), "name": "federated", "algorithm": "fedavg"}],
            "server": {
                "round_deadline_s": DEADLINE_S,
                "min_fit_clients": least,
                "min_available_clients": honest,
                "optimizer": optimizer,
                "fraction_fit": float(rng.choice([1.0, 0.6])),
            },
            "evaluation": {"every": int(rng.choice([1, 5, 100]))},
        }
        self.config = resolve(config_from(settings), (3,), ("a", "b"), NETWORK)
        own = bool(rng.integers(2))
        children = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(n))
        self.devices = [
            Inhabitant(f"device-{k}", kind, None if own else k, f"token-{k}" if tokens else "", child, 1.0)
            for k, (kind, child) in enumerate(zip(kinds, children, strict=True))
        ]
        for device in self.devices:
            device.train_s = float(rng.uniform(0.2, 6.0))
            if tokens:
                enroll(folder / "devices.json", device.name, device.token, 0.0)
        self.judge = Judge(folder / "run", self.config.server.clip, least, self.momentum, own)
        self.heap: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self.order, self.events, self.kills, self.deadlines, self.away_s = itertools.count(), 0, 0, 0, 0.0
        self.disk = Disk(fault="kill")
        self.disk.actor = "gateway"
        self.lives: dict[str, Life] = {}
        self.waiting: dict[str, int] = {}
        self.away: dict[str, float] = {}
        self.gateway: Gateway | None = None

    def at(self, seconds: float, what: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self.heap, (self.now + seconds, next(self.order), what))

    async def run(self) -> None:
        """Go on until the run is over; it must be so within a few deadlines for each stage."""
        self.open()
        for device in self.devices:
            self.at(float(self.rng.uniform(0, 5)), lambda device=device: self.live(device))
            if not self.calm:
                self.at(float(self.rng.exponential(300)), lambda device=device: self.leave(device))
        self.at(1.0, self.tick)
        if not self.calm:
            self.at(float(self.rng.exponential(60)), self.light_fuse)
        rounds = Plan(self.config).last_round or 0
        stages = 1 + rounds * (2 if self.config.evaluation.every == 1 else 1.2)
        while not (self.gateway and self.gateway.coordinator.finished):
            self.now, _, what = heapq.heappop(self.heap)
            self.events += 1
            await what()
            bound = DEADLINE_S * (10 + 2 * stages) + self.away_s + 40 * self.kills
            assert self.now < bound, f"{self.now:.0f} s and no end: round {self.judge.round} of {rounds}"
        self.close()

    def open(self) -> None:
        """Start the gateway on what is on disk."""
        directory, n = RunDirectory(self.folder / "run", self.config), len(self.devices)
        roster = Roster(self.folder / "run" / "roster.json", n, "salt")
        theta = np.zeros(NETWORK.layout.size, np.float32)
        coordinator = Coordinator(
            Plan(self.config), NETWORK, theta, directory, roster.names, self.now, roster.name, roster.own
        )
        self.gateway = Gateway(coordinator, roster, Tokens(self.folder / "devices.json"))
        self.judge.reopened(coordinator)

    def close(self) -> None:
        assert self.gateway
        self.gateway.coordinator.directory.close()
        self.gateway = None

    async def light_fuse(self) -> None:
        """Have the gateway killed after so many more operations on files."""
        self.disk.at = len(self.disk.names) + int(self.rng.integers(1, 200))
        self.at(float(self.rng.exponential(60)), self.light_fuse)

    def killed(self) -> None:
        self.kills, self.gateway = self.kills + 1, None
        self.disk.bury()
        self.at(float(self.rng.uniform(0, 20)), self.reopen)

    async def reopen(self) -> None:
        try:
            self.open()
        except Killed:
            self.killed()

    async def tick(self) -> None:
        """What `Gateway.watch` does each second."""
        if self.gateway:
            coordinator = self.gateway.coordinator
            self.deadlines += bool(coordinator.progress.cohort) and coordinator.seconds_left(self.now) <= 0
            try:
                coordinator.tick(self.now)
                self.look()
            except Killed:
                self.killed()
        self.at(1.0, self.tick)

    def look(self) -> None:
        """Have the judge look at what came of an event; no kill falls into that, as it is not the gateway's doing."""
        assert self.gateway
        fuse, self.disk.at = self.disk.at, 0
        self.judge.look(self.gateway.coordinator)
        self.disk.at = fuse
        honest = {device.disk.get("number") for device in self.devices if device.kind == "honest"}
        held = self.gateway.coordinator.standing.held & honest
        assert not held, f"honest devices are held: {held}"

    async def leave(self, device: Inhabitant) -> None:
        """Let a device be away for a while; half of them lose what they had not delivered."""
        seconds = float(self.rng.uniform(5, 3 * DEADLINE_S))
        self.away[device.name], self.away_s = self.now + seconds, self.away_s + seconds
        if self.rng.integers(2):
            device.disk.pop("results", None)
            self.waiting[device.name] = next(self.order)  # what comes for the process that ended is not heard
            self.at(seconds, lambda: self.live(device))
        self.at(float(self.rng.exponential(300)), lambda: self.leave(device))

    async def live(self, device: Inhabitant) -> None:
        """Start a device, or start it again."""
        self.lives[device.name] = life(device)
        self.waiting[device.name] = next(self.order)
        await self.resume(device, self.waiting[device.name], None)

    async def resume(self, device: Inhabitant, number: int, said: Any) -> None:
        """Give a device the answer that it waits for, and do what it wants next."""
        if self.waiting[device.name] != number:
            return  # it has it already, or was restarted
        number = self.waiting[device.name] = next(self.order)
        try:
            wish = self.lives[device.name].send(said)
        except StopIteration:
            return
        if isinstance(wish, Ask):
            self.post(device, lambda: self.arrive(device, wish, number))
            self.at(TIMEOUT_S, lambda: self.resume(device, number, None))
        else:
            self.at(wish, lambda: self.resume(device, number, None))

    def post(self, device: Inhabitant, arrival: Callable[[], Awaitable[None]]) -> None:
        """Send something from or to a device: it may come late, twice or never."""
        copies = 0 if self.rng.random() < self.loss else 2 if self.rng.random() < self.again else 1
        for _ in range(copies if self.away.get(device.name, 0.0) <= self.now else 0):
            late = not self.calm and self.rng.random() < 0.02
            self.at(float(self.rng.exponential(DEADLINE_S if late else 0.05)), arrival)

    async def arrive(self, device: Inhabitant, ask: Ask, number: int) -> None:
        """Let the gateway answer a request."""
        if self.gateway is None:
            return
        path = ask.path.partition("?")[0]
        number_of, judge = device.disk.get("number"), self.judge
        try:
            status, body = await self.answered(ask)
        except Killed:
            if path.endswith("/update"):
                judge.unknown = number_of, path, ask.body
            self.killed()
            return
        assert status < 500, f"{status}: {ask} by {device.kind}"
        if status == 200 and path.endswith("/update"):
            judge.acknowledged(number_of, path, ask.body)
        self.look()
        self.post(device, lambda: self.resume(device, number, (status, body)))

    async def answered(self, ask: Ask) -> tuple[int, bytes]:
        """Return what the gateway's routes say."""
        events = iter([*([Data(ask.body)] if ask.body else []), EndOfMessage()])
        parser = Parser(Limits())
        bearer = f"Authorization: Bearer {ask.bearer}\r\n" if ask.bearer else ""
        parser.receive(f"{ask.method} {ask.path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: ".encode())
        parser.receive(f"{len(ask.body)}\r\n\r\n".encode())
        request = parser.next_event()
        assert isinstance(request, Request)

        async def receive() -> Any:
            return next(events)

        async def go_on() -> None:
            """Nothing is kept back."""

        try:
            response = await answer(self.gateway, request, Body(request, "127.0.0.1", receive, go_on, lambda _: None))
        except ProtocolError as error:
            return error.fault.status, b""
        parts = [
            os.pread(part.source, part.length, part.offset) if isinstance(part, FilePart) else bytes(part)
            for part in response.parts
        ]
        await asyncio.sleep(0)  # files are closed then
        return response.status, b"".join(parts)


async def at_once(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return work(*args, **kwargs)


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Let the gateway have the world's clock and disk instead of the machine's."""
    clock = SimpleNamespace(monotonic=lambda: world.now, time=lambda: world.now)
    logging.disable()
    try:
        with (
            patch("edgemeta.gateway.gateway.time", clock),
            patch("edgemeta.gateway.routes.time", clock),
            patch("edgemeta.gateway.gateway.off_loop", at_once),
            patch("edgemeta.http.exchange.off_loop", at_once),
            in_place_of_the_system(world.disk),
        ):
            yield
    finally:
        logging.disable(logging.NOTSET)


def inhabit(seed: int, **settings: Any) -> World:
    """Run the world of a seed to its end; an AssertionError says the seed."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        world = World(seed, Path(folder), **settings)
        with simulated(world):
            try:
                asyncio.run(world.run())
            except Exception as error:
                kinds = ", ".join(device.kind for device in world.devices)
                raise AssertionError(f"make world SEED={seed}: at {world.now:.1f} s ({kinds}): {error!r}") from error
        return world


def main() -> None:
    """Run the world of the seed that was given, or those of many seeds for EDGEMETA_WORLD_S seconds (60)."""
    seeds = [int(sys.argv[1])] if sys.argv[1:] else itertools.count()
    began, worlds, rounds, events, kills = time.monotonic(), 0, 0, 0, 0
    for seed in seeds:
        world = inhabit(seed)
        worlds, rounds, events, kills = (
            worlds + 1,
            rounds + world.judge.closed,
            events + world.events,
            kills + world.kills,
        )
        if (spent := time.monotonic() - began) > float(os.environ.get("EDGEMETA_WORLD_S", "60")):
            break
    spent = time.monotonic() - began
    print(f"{worlds} worlds, {rounds} rounds closed, {events} events, {kills} kills in {spent:.0f} s")


if __name__ == "__main__":
    main()
