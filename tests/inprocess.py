"""A short run of a gateway and two devices in one thread, without sockets: only their disks can go wrong.

Everything between socket and disk is the package's own: the device's calls, the gateway's routes, bodies and answers.
A process that was killed, or could not start, is started again when it is needed next, as a service manager does it.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import RemoteDisconnected
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from disks import Disk, Killed

from edgemeta.config import config_from
from edgemeta.device import calls
from edgemeta.device.device import Device
from edgemeta.device.done import Kind
from edgemeta.device.own import own_part
from edgemeta.errors import StorageError
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.plan import Plan, resolve
from edgemeta.fed.simulation import run
from edgemeta.gateway.gateway import Gateway
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.routes import answer
from edgemeta.gateway.tokens import DEVICES_FILE, Tokens
from edgemeta.http.exchange import Body, blocks, open_files
from edgemeta.http.head import Request
from edgemeta.http.http1 import Data, EndOfMessage
from edgemeta.meta.learner import GradientAt, Learner
from edgemeta.meta.learners import LEARNERS
from edgemeta.nn import Dense, Model

DEVICES, CLASSES, BLOCK = 2, ("still", "shaking"), 1 << 16
NETWORK = Model([Dense(2)], (3,))
THETA = np.linspace(-0.5, 0.5, NETWORK.layout.size).astype(np.float32)
RNG = np.random.default_rng(1)
DATA = tuple((RNG.random((count, 3), np.float32), np.arange(count) % 2) for count in (12, 8))
PHASE = {"algorithm": "keeping", "rounds": 2, "local_steps": 2, "batch_size": 2, "momentum": 0.5, "upload": "float16"}
SETTINGS: dict[str, Any] = {
    "data": {"participants": DEVICES, "partition": "iid"},
    "phases": [PHASE],
    "evaluation": {"every": 2, "support": 4, "adapt_steps": 1},
}


def _keeping(model: Any, vectors: Any, batches: Any, recipe: Any, workspace: Any) -> Any:
    """Descend from where a vector that stays here and one that travels have moved theta, and add one to each."""
    one = np.full(1, -1 / recipe.lr, np.float32)
    moved = vectors["theta"] + (vectors["own"] + vectors["beside"]) * np.float32(0.01)
    return [], {"theta": GradientAt(moved, batches[0]), "own": one, "beside": one}


def _zero(_: Any) -> Any:
    return np.zeros(1, np.float32)


KEEPING = Learner(_keeping, lambda _: 1, lambda _: 1, "none", private={"own": _zero}, shared={"beside": _zero})


class Inline(ThreadPoolExecutor):
    """Does at once what a thread would do, so that operations come in the same order each time."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **how: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **how))
        except BaseException as error:
            future.set_exception(error)
        return future


class House:
    """The gateway and the devices whose states are in a folder; `go` runs them to the end of the run.

    Each is ended and started again all the time, so that most of what can be open is found again. accepted: what
    devices were told that it was, before now too; made: what they made of their tasks. Raises AssertionError when one
    is asked again for what it was told is accepted, and whatever the package raises that it should not.
    """

    def __init__(self, folder: Path, disk: Disk, accepted: Any = ()) -> None:
        self.folder, self.disk, self.accepted, self.made = folder, disk, set(accepted), list[str]()
        self.config = resolve(config_from(SETTINGS), (3,), CLASSES, NETWORK)
        self.gateway: Gateway | None = None
        self.devices: dict[int, Device] = {}
        self.now = [0.0] * DEVICES

    def go(self) -> None:
        """Run to the end."""
        over: set[int] = set()
        for step in range(800):
            k = step % DEVICES
            if k not in over and self._step(k):
                over.add(k)
            if step % 2:
                self._tick()
            if step % 5 == 4:
                self._end_one(step // 5 % (DEVICES + 1))
            if len(over) == DEVICES:
                self.close()
                return
        raise AssertionError("it did not end")

    def close(self) -> None:
        """End the processes in order."""
        for one in range(DEVICES + 1):
            self._end_one(one)

    def _end_one(self, one: int) -> None:
        """End a device, or the gateway, as one that is asked to stop."""
        if one < DEVICES and one in self.devices:
            self.disk.actor = f"device-{one}"
            with suppress(Killed):
                self.devices.pop(one).close()
                return
            self.disk.bury()
        elif one == DEVICES and self.gateway:
            self.disk.actor = "gateway"
            self.gateway.coordinator.directory.close()
            self.loop.close()
            self.gateway = None

    def _step(self, k: int) -> bool:
        """Let a device do one thing; return whether the run is over for it."""
        self.disk.actor = f"device-{k}"
        with suppress(Killed):
            try:
                if k not in self.devices:
                    self.devices[k] = Device(
                        *("http://gateway:1", DATA, self.folder / f"device-{k}", f"board-{k}", k),
                        rng=np.random.default_rng(k),
                        clock=lambda: self.now[k],
                    )
                    self.devices[k]._gateway._connection = Wire(self, k)  # type: ignore[assignment]
                done = self.devices[k].step(budget_s=0)
            except StorageError:
                assert k not in self.devices, "a step raises no StorageError"
                return False
            self.now[k] += done.wait_s + 0.01
            if re.match(r"trained (\d+) of \1 |round \d+: ", done.text):
                self.made.append(f"device-{k} {done.text}")
            return done.kind == Kind.OVER
        self.devices.pop(k, None)
        self.disk.bury()
        return False

    def _tick(self) -> None:
        """What `Gateway.watch` does each second."""
        with suppress(ConnectionError, StorageError):
            gateway = self._served()
            self._perform(lambda: gateway.coordinator.tick(time.monotonic()))

    def ask(self, method: str, target: str, headers: dict[str, str], content: bytes) -> tuple[int, Any, bytes]:
        """Have the gateway answer a request; raises ConnectionError when it is killed meanwhile, or does not start."""
        gateway = self._served()
        whole = urlsplit(target)
        lower = {name.lower(): text for name, text in headers.items()}
        request = Request(
            *(method, target, whole.path, dict(parse_qsl(whole.query)), lower, "1.1", True),
            *(len(content), False),
        )
        events = [*(Data(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)), EndOfMessage()]

        async def receive() -> Any:
            return events.pop(0)

        async def answered() -> tuple[int, Any, bytes]:
            with ExitStack() as files:
                body_in = Body(request, "::1", receive, receive, lambda _: None)
                response = open_files(await answer(gateway, request, body_in), files)
                try:
                    body = b"".join([bytes(block) for part in response.parts async for block in blocks(part)])
                except StorageError:  # in the middle of an answer: all that is left is to cut the connection
                    raise ConnectionResetError from None
                return response.status, response.headers, body

        status, said, body = self._perform(lambda: self.loop.run_until_complete(answered()))
        if status == 200 and whole.path == "/v1/work":
            self._check_task(body)
        assert status != 500
        return status, said, body

    def _check_task(self, body: bytes) -> None:
        length = int.from_bytes(body[:8], "little")
        task = json.loads(body[8 : 8 + length])["__metadata__"]
        asked = (int(task["participant"]), "update" if task["kind"] == "train" else "evaluation", int(task["round"]))
        assert asked not in self.accepted, f"{asked} was accepted, and is asked for again"

    def told(self, target: str, participant: int) -> None:
        """Take note of what a device has been told is accepted."""
        _, _, _, number, what = target.split("/")
        self.accepted.add((participant, what, int(number)))
        self.disk.note((participant, what, int(number)))

    def _served(self) -> Gateway:
        """Return the gateway, as `run_gateway` puts it together; raises ConnectionError when it cannot start."""
        if self.gateway is None:
            self.loop = asyncio.new_event_loop()
            self.loop.set_default_executor(Inline())
            try:
                self.gateway = self._perform(self._opened)
            except StorageError:
                self.loop.close()
                raise ConnectionRefusedError from None
        return self.gateway

    def _opened(self) -> Gateway:
        state = self.folder / "gateway"
        directory = RunDirectory(state, self.config)
        try:
            roster = Roster(state / "roster.json", DEVICES, "salt")
            tokens = Tokens(state / DEVICES_FILE)
            coordinator = Coordinator(
                Plan(self.config), NETWORK, THETA, directory, roster.names, time.monotonic(), name=roster.name
            )
            return Gateway(coordinator, roster, tokens)
        except BaseException:
            directory.close()
            raise

    def _perform(self, work: Callable[[], Any]) -> Any:
        """Do something in the gateway's process."""
        before, self.disk.actor = self.disk.actor, "gateway"
        try:
            with suppress(Killed):
                return work()
            self.gateway = None
            self.loop.close()
            self.disk.bury()
            raise ConnectionResetError
        finally:
            self.disk.actor = before


class Wire:
    """What a device takes for its connection."""

    def __init__(self, house: House, participant: int) -> None:
        self._house, self._participant, self.sock = house, participant, None

    def connect(self) -> None:
        self.sock = SimpleNamespace(settimeout=lambda _: None)

    def close(self) -> None:
        self.sock = None

    def request(self, method: str, target: str, body: Any, headers: dict[str, str]) -> None:
        content = body if isinstance(body, bytes) else b"".join(iter(lambda: body.read(BLOCK), b"")) if body else b""
        self._answer = None
        try:
            self._answer = self._house.ask(method, target, headers, content)
        except ConnectionError:
            pass
        except Exception as error:  # a device would take some of them for the network's
            raise AssertionError(f"{method} {target} ended in an error") from error
        if self._answer and self._answer[0] == 200 and method == "POST" and "/rounds/" in target:
            self._house.told(target, self._participant)

    def getresponse(self) -> Any:
        if self._answer is None:
            raise RemoteDisconnected("it was killed")
        status, headers, body = self._answer
        left = [body[at : at + BLOCK] for at in range(0, len(body), BLOCK)]
        return SimpleNamespace(status=status, headers=headers, length=0, read=lambda _: left.pop(0) if left else b"")


def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the package know the learner of the run, wait for nobody, and go into a folder: short ways take less time."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(LEARNERS, "keeping", KEEPING)
    monkeypatch.setattr(calls.time, "sleep", lambda _: None)


def simulated(folder: Path) -> Path:
    """Run the same in a simulation, and return its run directory."""
    config = resolve(config_from(SETTINGS), (3,), CLASSES, NETWORK)
    participants = [own_part(DATA, (3,), CLASSES, config.data, config.seed, k, cut=True) for k in range(DEVICES)]
    run(config, NETWORK, participants, out=folder, theta=THETA, clock=time.monotonic)
    return folder
