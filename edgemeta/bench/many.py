"""Many devices on one gateway: do all get their turns, and what does that cost?  python -m edgemeta.bench.many

Devices are enrolled, join with their tokens and ask for work as `edgemeta client` does, some hundred threads in each of
ten processes; what they deliver is made up, so that the gateway is what is measured. A turn is a task that
a device gets; the wait between two turns of a device is what is counted.
"""

import argparse
import json
import multiprocessing
import os
import queue
import secrets
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.bench.loopback import gateway, memory_mb
from edgemeta.config import config_from, to_toml
from edgemeta.device.calls import Away, Gateway
from edgemeta.device.pace import FIRST_S, LONGEST_S
from edgemeta.errors import EdgemetaError
from edgemeta.gateway.tokens import DEVICES_FILE, FORMAT, Enrolled, Register, digest
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.storage import write_kept

WAIT_S = 30  # that a device lets the gateway hold its answer
LOOK_S = 2.0  # between two looks at the gateway's memory, descriptors and status
SETTINGS: dict[str, Any] = {
    "model": {"name": "mlp", "input_shape": [4], "classes": ["a", "b"]},
    "phases": [{"algorithm": "fedavg", "rounds": 0, "local_steps": 1, "batch_size": 4}],
    "evaluation": {"every": 1_000_000},
}


class _Device:
    """A device that has no data, and takes its turns until `end` (of time.monotonic)."""

    def __init__(self, url: str, name: str, token: str, folder: Path, end: float, seed: int) -> None:
        self.gateway, self.name, self.token, self.task, self.end = Gateway(url), name, token, folder / name, end
        self.turns: list[float] = []
        self.refused, self._failures, self._rng = 0, 0, np.random.default_rng(seed)

    def live(self) -> None:
        session, pause = "", 0.0
        while time.monotonic() + pause < self.end:
            time.sleep(pause)
            try:
                session = session or self._join()
                pause = self._turn(session)
            except (Away, KeyError):
                pause = self._again_s(0.0)
        self.gateway.close()

    def _again_s(self, asked_s: float) -> float:
        """Return for how long to wait after a failure, as a device does it."""
        longest = min(FIRST_S * 2.0 ** min(self._failures, 30), LONGEST_S)
        self.refused, self._failures = self.refused + 1, self._failures + 1
        return max(asked_s, longest * float(self._rng.uniform(0.5, 1)))

    def _join(self) -> str:
        asked = {"name": self.name, "key": self.token, "version": 1}
        answer = self.gateway.call("POST", "/v1/join", session=self.token, body=json.dumps(asked).encode())
        return str(answer.json()["session"])

    def _turn(self, session: str) -> float:
        """Ask for work and do it; return for how long (seconds) to wait then."""
        answer = self.gateway.call("GET", f"/v1/work?wait={WAIT_S}", session=session, into=self.task, wait_s=WAIT_S)
        if answer.status not in (200, 204):
            return self._again_s(answer.retry_after_s or 0.0)
        self._failures = 0
        if answer.status == 204:
            return float((answer.retry_after_s or 1.0) * self._rng.uniform(1, 1.25))
        self.turns.append(time.monotonic())
        tensors, said = read_tensors(self.task)
        number = said["round"]
        if said["kind"] == "train":
            metrics = json.dumps({"loss": 1.0, "gradient_evaluations": 1})
            facts = {"round": number, "layout": said["layout"], "samples": "4", "metrics": metrics}
            made_up = {"theta": np.full_like(tensors["theta"], 1e-3)}
            body = b"".join(bytes(part) for part in encode_tensors(made_up, facts))
            self._deliver(session, f"/v1/rounds/{number}/update", body)
        else:
            scores = {"loss": 1.0, "accuracy": 0.5}
            told = {"metrics": {"samples": 4, "before": scores, "after": scores, "grid": []}}
            self._deliver(session, f"/v1/rounds/{number}/evaluation", json.dumps(told).encode())
        return 0.0

    def _deliver(self, session: str, path: str, body: bytes) -> None:
        """Deliver a result; raises EdgemetaError when it is refused for another reason than that it is late."""
        while (answer := self.gateway.call("POST", path, session=session, body=body)).status == 503:
            time.sleep(float(self._rng.uniform(1, 2)))
        if answer.status not in (200, 409):
            raise EdgemetaError(f"the gateway did not take a result: {answer.refusal}")


def _devices(url: str, tokens: dict[str, str], end: float, seed: int, found: Any) -> None:
    """Let devices live in this process, a thread each, and put the waits between their turns into `found`."""
    threading.stack_size(256 << 10)
    with tempfile.TemporaryDirectory() as folder:
        devices = [
            _Device(url, name, token, Path(folder), end, seed + k) for k, (name, token) in enumerate(tokens.items())
        ]
        threads = [threading.Thread(target=device.live) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found.put([(device.turns, device.refused) for device in devices])


def measure(count: int, seconds: float, processes: int = 10, warm_s: float = 30.0) -> dict[str, Any]:
    """Return what was measured in so many seconds, after the first warm_s, in which all join."""
    names = [f"device-{k}" for k in range(count)]
    tokens = {name: secrets.token_hex(32) for name in names}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        data = {"participants": count}
        quorum = {"min_available_clients": max(count // 2, 1), "round_deadline_s": 60}
        (folder / "run.toml").write_text(to_toml(config_from(SETTINGS | {"data": data, "server": quorum})))
        (folder / "site").mkdir()
        enrolled = {name: Enrolled(time.time(), (digest(token),)) for name, token in tokens.items()}
        write_kept(folder / "site" / DEVICES_FILE, Register(enrolled), FORMAT, private=True)
        with gateway(folder / "run.toml", folder / "site") as (server, url):
            began = time.monotonic()
            end = began + warm_s + seconds
            found: Any = multiprocessing.Queue()
            parts = [{name: tokens[name] for name in names[k::processes]} for k in range(processes)]
            work = [
                multiprocessing.Process(target=_devices, args=(url, part, end, 1000 * k, found))
                for k, part in enumerate(parts)
                if part
            ]
            for process in work:
                process.start()
            looks = _looks(server.pid, url, end)
            lived = []
            for _ in work:
                try:
                    lived += found.get(timeout=120)
                except queue.Empty:
                    raise EdgemetaError("a process of devices did not end") from None
            for process in work:
                process.join()
            return _figures(lived, began + warm_s, seconds) | looks | {"memory_peak_mb": round(memory_mb(server, True))}


def _looks(pid: int, url: str, end: float) -> dict[str, Any]:
    """Return the most descriptors that the gateway had open, and how slowly its status was answered, until `end`."""
    watcher, most, slowest, missed = Gateway(url), 0, 0.0, 0
    connections: Any = None
    while time.monotonic() < end:
        most, asked = max(most, len(os.listdir(f"/proc/{pid}/fd"))), time.monotonic()
        try:
            for path in ("/healthz", "/status.json"):
                answer = watcher.call("GET", path)
                missed += answer.status != 200
            connections = answer.json().get("connections")
        except Away:
            missed += 1
        slowest = max(slowest, time.monotonic() - asked)
        watcher.close()
        time.sleep(LOOK_S)
    facts = {"descriptors_most": most, "status_slowest_s": round(slowest, 2), "status_missed": missed}
    return facts | {"connections": connections}


def _figures(lived: Sequence[tuple[list[float], int]], start: float, seconds: float) -> dict[str, Any]:
    """Return what the turns of all devices come to that were taken from `start` on."""
    late = [[when for when in turns if when >= start] for turns, _ in lived]
    waits = np.concatenate([np.diff(turns) for turns in late if len(turns) > 1] or [np.zeros(1)])
    p50, p99 = np.percentile(waits, [50, 99]).tolist()
    return {
        "devices": len(lived),
        "seconds": seconds,
        "without_a_turn": sum(len(turns) < 2 for turns in late),
        "turns": sum(map(len, late)),
        "wait_s": {"p50": round(p50, 2), "p99": round(p99, 2), "most": round(float(waits.max()), 2)},
        "p99_over_p50": round(p99 / max(p50, 1e-9), 2),
        "refused": sum(refused for _, refused in lived),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--warm", type=float, default=60.0, help="seconds before, in which all join")
    parser.add_argument("--processes", type=int, default=10)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.devices, options.seconds, options.processes, options.warm)))


if __name__ == "__main__":
    main()
