"""A gateway in a thread, and devices that speak raw HTTP to it, with nothing of the package on their side."""

import asyncio
import http.client
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgemeta.config import config_from
from edgemeta.fed.plan import resolve
from edgemeta.fed.runs import runs
from edgemeta.gateway.server import run_gateway
from edgemeta.gateway.site import begin_run, opened
from edgemeta.link.address import is_loopback
from edgemeta.nn import Dense, Model

NETWORK = Model([Dense(2)], (3,))  # 3 * 2 weights + 2 biases: 8 parameters
SIZE = 8
SCORES = {"loss": 1.0, "accuracy": 0.5}

ACCEPTED = (200, {"accepted": True})


def key_of(name: str) -> str:
    return f"the long secret of {name}"


class Device:
    """A raw peer that has joined, or not yet."""

    def __init__(self, port: int, name: str, session: str | None = None) -> None:
        self.port, self.name, self.session = port, name, session

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Return (status, headers, body), the body decoded where it is JSON."""
        if self.session:
            headers.setdefault("Authorization", f"Bearer {self.session}")
        peer = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            peer.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers)
            answer = peer.getresponse()
            data = answer.read()
            kind = answer.headers.get("Content-Type")
            return answer.status, answer.headers, json.loads(data) if data and kind == "application/json" else data
        finally:
            peer.close()

    def join(self, **fields: Any) -> tuple[int, Any]:
        asked = {"name": self.name, "version": 1, "key": key_of(self.name), **fields}
        status, _, answer = self.call("POST", "/v1/join", {k: v for k, v in asked.items() if v is not ...})
        if status == 200:
            self.session, self.participant = answer["session"], answer["participant"]
        return status, answer

    def work(self, wait: float = 0) -> tuple[str, int] | int:
        """Return (kind, round) of the task, or the status when there is none; `theta` is what came with it."""
        status, _, data = self.call("GET", f"/v1/work?wait={wait}")
        if status != 200:
            return status
        length = struct.unpack("<Q", data[:8])[0]
        self.task = json.loads(data[8 : 8 + length])["__metadata__"]
        self.theta = np.frombuffer(data, "<f4", offset=8 + length).tolist()
        return self.task["kind"], int(self.task["round"])

    def update(self, value: float = 1.0, round_number: int = 1, **changes: Any) -> tuple[int, Any]:
        status, _, answer = self.call(
            "POST", f"/v1/rounds/{round_number}/update", update_body(value, round_number, **changes)
        )
        return status, answer

    def scores(self, round_number: int = 0, **changes: Any) -> tuple[int, Any]:
        metrics = {"samples": 4, "before": SCORES, "after": SCORES, "grid": [], **changes}
        status, _, answer = self.call("POST", f"/v1/rounds/{round_number}/evaluation", {"metrics": metrics})
        return status, answer

    def status(self) -> Any:
        return self.call("GET", "/status.json")[2]


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> bytes:
    """Return a file of name -> (dtype, shape, bytes), put together by hand."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        start, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def update_body(value: float, round_number: int, **changes: Any) -> bytes:
    count = changes.pop("count", SIZE)
    metadata = {
        "format": "edgemeta/1",
        "round": str(round_number),
        "layout": NETWORK.layout.fingerprint,
        "samples": "10",
        "metrics": json.dumps({"loss": 0.5, "gradient_evaluations": 2}),
        **changes,
    }
    return safetensors({"theta": ("F32", [count], struct.pack(f"<{count}f", *[value] * count))}, metadata)


class Gateway:
    """A run that is served from a thread of this process until `stop`, and may be started again."""

    def __init__(
        self, path: Any, participants: int = 2, held_out: int = 0, rounds: int = 1, every: int = 100, **more: Any
    ) -> None:
        self.path, self.network = path, more.pop("network", NETWORK)
        self.host = more.pop("host", "127.0.0.1")
        usual = {"tls": None, "insecure": False, "names": (), "announced": False}
        self.access = {key: more.pop(key, value) for key, value in usual.items()}
        self.records: list[Any] = []
        self.on_round = more.pop("on_round", self.records.append)
        grid = more.pop("grid", [])
        settings = {
            "data": {"participants": participants, "held_out": held_out},
            "phases": [{"rounds": rounds, "name": "federated"}],
            "server": {"round_deadline_s": 60, **more},
            "evaluation": {"every": every, "grid": grid},
        }
        self.config = resolve(config_from(settings), self.network.input_shape, ("a", "b"), self.network)
        self.start()

    def start(self) -> None:
        listening = threading.Event()

        async def live() -> None:
            self.loop, self.stopped = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

            def on_listening(port: int) -> None:
                self.port = port
                listening.set()

            with opened(self.path):
                if not runs(self.path):
                    begin_run(self.path, self.config, self.network, np.zeros(self.network.layout.size, np.float32))
                await run_gateway(
                    *(self.path, self.host, 0),
                    stopped=self.stopped,
                    on_listening=on_listening,
                    on_round=lambda record, _: self.on_round(record),
                    **self.access,
                )

        self.thread = threading.Thread(target=asyncio.run, args=(live(),))
        self.thread.start()
        assert listening.wait(10)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.stopped.set_result, 0)
            self.thread.join(20)
            assert not self.thread.is_alive()

    def device(self, name: str, **fields: Any) -> Device:
        """Return a device that has joined."""
        device = Device(self.port, name)
        status, answer = device.join(**fields)
        assert status == 200, answer
        return device

    def devices(self, count: int = 2) -> list[Device]:
        """Return devices that have joined and are past the evaluation of the start."""
        devices = [self.device(f"cam-{k}") for k in range(count)]
        for device in devices:
            assert device.work(wait=5) == ("evaluate", 0)
            assert device.scores() == (200, {"accepted": True})
        return devices


@contextmanager
def no_gateway_left(gateways: list[Gateway]) -> Any:
    try:
        yield
    finally:
        for gateway in gateways:
            gateway.stop()


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def refused(answer):
    """Return (status, reason) of a refusal, which always says more than that."""
    status, said = answer
    assert said["detail"]
    return status, said["error"]


def own_address():
    """Return an address of this machine that is not loopback, or None; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            return None
    return None if is_loopback(address) else address
