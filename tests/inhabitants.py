"""The devices of the seeded world: honest ones, and one hostile kind for each thing that a device can do to a run.

A device is a generator: it yields what it asks of the gateway, an Ask, or for how many seconds it sleeps, and is sent
the answer, (status, body), None when none came. What it keeps over a restart is in its `disk`. Nothing of the package's
own device is used here: messages are put together by hand.
"""

import json
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from gateways import NETWORK, SCORES, SIZE, key_of, safetensors, update_body

FAR = 1e4  # a model with such numbers diverges on an honest device; honest updates have norms of about 1


class Ask(NamedTuple):
    """A request. bearer: what proves who asks."""

    method: str
    path: str
    body: bytes = b""
    bearer: str = ""


Answer = tuple[int, bytes] | None
Life = Generator[Ask | float, Answer, None]


@dataclass
class Inhabitant:
    """A device. kind: "honest", or of HOSTILE; wanted: the part of the data that it asks for; token: its own, or ""."""

    name: str
    kind: str
    wanted: int | None
    token: str
    rng: np.random.Generator
    train_s: float
    disk: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes = b"") -> Ask:
        return Ask(method, path, body, self.disk.get("session", ""))

    def join(self, **changes: Any) -> Ask:
        said = {"name": self.name, "version": 1, "key": key_of(self.name), "partition_id": self.wanted, **changes}
        return Ask("POST", "/v1/join", json.dumps(said).encode(), self.token)


def life(me: Inhabitant) -> Life:
    """Join, work, deliver, again and again: also of hostile devices, whose results are others."""
    while True:
        if "session" not in me.disk:
            answer = yield me.join()
            if answer is None or answer[0] != 200:
                yield 2.0
                continue
            me.disk["session"], me.disk["number"] = (json.loads(answer[1])[key] for key in ("session", "participant"))
        if "results" not in me.disk:
            answer = yield me.ask("GET", "/v1/work?wait=0")
            if answer is not None and answer[0] == 410:
                return
            if answer is None or answer[0] != 200:
                yield 1.0
                continue
            task, theta = read_task(answer[1])
            yield me.train_s * float(me.rng.uniform(0.5, 1.5))
            path, body = honest_result(me, task, theta)
            results = [(path, body)] if me.kind == "honest" else HOSTILE[me.kind](me, task, path, body)
            me.disk["results"] = results
            me.sent += results
        while results := me.disk["results"]:
            answer = yield me.ask("POST", *results[0])
            if answer is None or answer[0] >= 500:
                yield 1.0
                continue
            del results[0]
        del me.disk["results"]


def read_task(data: bytes) -> tuple[dict[str, str], np.ndarray]:
    """Return a task's metadata and its theta."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    start, end = (8 + length + offset for offset in header["theta"]["data_offsets"])
    return header["__metadata__"], np.frombuffer(data[start:end], "<f4")


def honest_result(me: Inhabitant, task: dict[str, str], theta: np.ndarray) -> tuple[str, bytes]:
    """Return where an honest device's result goes, and the result."""
    place = f"/v1/rounds/{task['round']}/"
    if task["kind"] == "evaluate":
        metrics = {"samples": 4, "before": SCORES, "after": SCORES, "grid": []}
        return place + "evaluation", json.dumps({"metrics": metrics}).encode()
    panics = me.disk.setdefault("panics", [])
    number = int(task["round"])
    if np.abs(theta).max() > FAR or (number % 6 == 0 and number not in panics):  # once, so that rounds are repeated
        panics.append(number)
        return place + "diverged", b""
    way = np.random.default_rng([int(task["round"]), me.disk["number"]])
    delta = way.normal(size=SIZE)
    delta *= way.uniform(0.7, 1.4) / np.linalg.norm(delta)
    return place + "update", update(task, delta, samples=str(way.integers(5, 50)))


def update(task: dict[str, str], delta: np.ndarray, **changes: str) -> bytes:
    """Return an update's message; changes: of its metadata."""
    metadata = {
        "format": "edgemeta/1",
        "round": task["round"],
        "layout": NETWORK.layout.fingerprint,
        "metrics": json.dumps({"loss": 0.5, "gradient_evaluations": 2}),
        **changes,
    }
    values = delta.astype("<f4")
    return safetensors({"theta": ("F32", [values.size], values.tobytes())}, metadata)


Results = list[tuple[str, bytes]]
Deed = Callable[[Inhabitant, dict[str, str], str, bytes], Results]


def _spoiled(make: Callable[[Inhabitant, dict[str, str]], bytes]) -> Deed:
    """Return what sends another update, and honest scores."""
    return lambda me, task, path, body: [(path, make(me, task) if task["kind"] == "train" else body)]


def _filled(me: Inhabitant, task: dict[str, str], values: list[float], **changes: str) -> bytes:
    return update(task, np.full(SIZE, me.rng.choice(values)), **{"samples": "20", **changes})


def _metrics(loss: float | str) -> str:
    return json.dumps({"loss": loss, "gradient_evaluations": 2})


def _mutated(me: Inhabitant, _task: dict[str, str], path: str, body: bytes) -> Results:
    spoiled = bytearray(body)
    for place in me.rng.integers(0, max(len(body), 1), 4) if body else ():
        spoiled[place] = me.rng.integers(0, 256)
    return [(path, bytes(spoiled[: me.rng.integers(0, len(body) + 1)] if me.rng.random() < 0.5 else spoiled))]


def _replayed(me: Inhabitant, task: dict[str, str], path: str, body: bytes) -> Results:
    old = [me.sent[i] for i in me.rng.integers(0, len(me.sent), 3)] if me.sent else []
    return [*old, *((path, other) for _, other in old), (path, body)]


def _misplaced(me: Inhabitant, task: dict[str, str], path: str, body: bytes) -> Results:
    rounds = [0, 1, int(task["round"]) + 1, int(task["round"]) - 1, 999_999_999]
    return [(f"/v1/rounds/{abs(n)}/{kind}", body) for n in rounds for kind in ("update", "evaluation", "diverged")]


def _joining(me: Inhabitant, _task: dict[str, str], path: str, body: bytes) -> Results:
    said = json.loads(me.join().body)
    spoiled: list[Any] = [{**said, "name": f"ghost-{i}", "key": "k" * 20, "partition_id": i} for i in range(4)]
    spoiled += [{**said, "partition_id": 1 << 70}, {**said, "name": "x\n\x1b[2J"}, {**said, "key": 3}, [], None]
    return [*(("/v1/join", json.dumps(one).encode()) for one in spoiled), ("/v1/join", b"[" * 9000), (path, body)]


def _scored(me: Inhabitant, task: dict[str, str], path: str, body: bytes) -> Results:
    odd: list[Any] = [{"loss": 1e300, "accuracy": 1}, {"loss": None}, {}, {"loss": 1, "accuracy": -3}, [1], {"loss": 1}]
    scores = odd[me.rng.integers(0, len(odd))]
    metrics = {"samples": int(me.rng.choice([4, 10**9, 0])), "before": scores, "after": SCORES, "grid": []}
    return [(path, body if task["kind"] == "train" else json.dumps({"metrics": metrics}).encode())]


def _nothing(me: Inhabitant, task: dict[str, str], path: str, body: bytes) -> Results:
    return []


def _crying(me: Inhabitant, task: dict[str, str], path: str, body: bytes) -> Results:
    return [(f"/v1/rounds/{task['round']}/diverged", b"")]


HOSTILE: dict[str, Deed] = {
    "huge": _spoiled(lambda me, task: _filled(me, task, [1e30, 3.4e38, -3.4e38, 1e6])),
    "tiny": _spoiled(lambda me, task: _filled(me, task, [0.0, 1e-40])),
    "not finite": _spoiled(lambda me, task: _filled(me, task, [np.nan, np.inf])),
    "wrong shape": _spoiled(lambda me, task: update_body(1.0, int(task["round"]), count=int(me.rng.integers(0, 20)))),
    "heavy": _spoiled(lambda me, task: _filled(me, task, [0.3], samples=me.rng.choice(["1000000000", "0", "9" * 30]))),
    "odd loss": _spoiled(
        lambda me, task: _filled(me, task, [0.3], metrics=_metrics(me.rng.choice([1e308, -1e308, 1e30, np.nan])))
    ),
    "mutated": _mutated,
    "replayed": _replayed,
    "misplaced": _misplaced,
    "joining": _joining,
    "odd scores": _scored,
    "never": _nothing,
    "crying": _crying,
}
