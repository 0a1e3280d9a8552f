"""The kept fixtures: state directories, messages and model files of earlier commits, opened with as little as can be.

What reads them here is put together by hand, so that a change of the package cannot hide itself. `fixtures/README.md`
says what there is; `fixtures/make.py` made it.
"""

import json
import re
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from processes import end
from taught import COUNTING

from edgemeta.bench.loopback import start_gateway
from edgemeta.fed.client import client_update
from edgemeta.meta import evaluate

FIXTURES = Path(__file__).parent / "fixtures"
FIRST = FIXTURES / "47b6af5"  # before the rooms and the seams of 0.2


def _counting(_model: Any, vectors: Any, _batches: Any, recipe: Any, _workspace: Any) -> Any:
    moved = np.full_like(vectors["theta"], vectors["count"][0])
    return [1.0], {"theta": moved, "count": np.full(1, -1 / recipe.lr, np.float32)}


# A learner that counts its steps in a vector that never travels, and moves theta by lr times the count in each: so an
# update says what the private vector was, and is worked out by hand.
SHOWING = replace(COUNTING, direct=_counting)


def unpack(name: str, folder: Path) -> Path:
    """Unpack a fixture of the first commit into a folder, and return that."""
    with tarfile.open(FIRST / f"{name}.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # what Pythons without it do is harmless here
        archive.extractall(folder)
    return folder


def tensors_in(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the metadata and the tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    kinds, tensors = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}, {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return metadata, tensors


def vector_in(data: bytes) -> np.ndarray:
    """Return the parameters in a model file, or the one tensor of a message, as the flat vector that they are."""
    return np.concatenate([tensor.ravel() for tensor in tensors_in(data)[1].values()])


def mark(path: Path, tensor: str) -> None:
    """Change a number in a kept file, so that to use it is not the same as to make it anew on this processor."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start = 8 + length + json.loads(data[8 : 8 + length])[tensor]["data_offsets"][0]
    data[start : start + 4] = struct.pack("<f", 0.5)
    path.write_bytes(data)


def run_in(state: Path) -> Path:
    """Return the one run directory in a folder, wherever in it a version keeps it."""
    (found,) = state.rglob("run.toml")
    return found.parent


def history_in(state: Path) -> list[dict[str, Any]]:
    """Return the records of the finished rounds."""
    return [json.loads(line) for line in (run_in(state) / "history.jsonl").read_text().splitlines()]


@contextmanager
def served(state: Path) -> Iterator[tuple[Any, int]]:
    """Run the gateway of a state directory, by the configuration in it, and give its process and port.

    The kept requests are for a host "x", and a gateway answers tokenless ones to names that it knows.
    """
    process, url = start_gateway(run_in(state) / "run.toml", state, "--name", "x")
    try:
        yield process, int(url.rpartition(":")[2])
    finally:
        end(process)


def fold(theta: np.ndarray, updates: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return theta and the mean of (delta, samples), in the order given, in double precision until its end."""
    total, count = np.zeros(theta.size), 0
    for delta, samples in updates:
        total, count = total + delta.astype(np.float64) * samples, count + samples
    return theta + (total / count).astype(np.float32)


def recipe_of(config: Any, number: int) -> tuple[int, Any]:
    """Return the index of a round's phase, and the phase with the round's own rate."""
    before = 0
    for index, phase in enumerate(config.phases):
        if number <= before + phase.rounds:
            return index, replace(phase, lr=phase.lr * phase.lr_decay ** max(number - before - 1, 0))
        before += phase.rounds
    raise AssertionError(f"there is no round {number}")


def draws(config: Any, number: int, k: int) -> Any:
    """Return step -> the generator of a participant's local step."""
    phase = recipe_of(config, number)[0]
    return lambda step: np.random.default_rng([config.seed, 5, phase, number, k, step])


def trained(prepared: Any, theta: np.ndarray, number: int, k: int) -> Any:
    """Return a participant's update in a round that begins at theta."""
    recipe = recipe_of(prepared.config, number)[1]
    data = prepared.participants[k].train
    return client_update(prepared.network, recipe, {"theta": theta}, {}, data, draws(prepared.config, number, k))


def scored(prepared: Any, theta: np.ndarray, number: int, k: int) -> Any:
    """Return a participant's scores of a round's model."""
    config, own = prepared.config, prepared.participants[k]
    rng = np.random.default_rng([config.seed, 6, number, k])
    batch_size = recipe_of(config, number)[1].batch_size
    return evaluate(prepared.network, theta, own.train, own.test, config.evaluation, batch_size, rng)


def next_model(prepared: Any, theta: np.ndarray, number: int, count: int) -> np.ndarray:
    """Return the model that a round of the first `count` participants leads to."""
    updates = [trained(prepared, theta, number, k) for k in range(count)]
    return fold(theta, [(update.shared["theta"], update.samples) for update in updates])


def message(file: Any) -> bytes:
    """Return the next HTTP message of a connection's file, b"" at its end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return head
        head += line
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head + file.read(int(length[1]) if length else 0)


def parts(data: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return a message's first line, its headers in their order, and its body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def said(status: int, body: bytes, *headers: str) -> bytes:
    """Return an answer, put together by hand."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def asked(port: int, request: bytes) -> bytes:
    """Send bytes as they are, on a connection of their own, and return the answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as peer, peer.makefile("rb") as file:
        peer.sendall(request)
        return message(file)


@contextmanager
def answering(answers: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Be a gateway that gives these answers, one after the other; give its port and the requests, as they come.

    It is one of a time when devices joined without a look at the run, and knows of no number that they draw.
    """
    left, requests = list(answers), []

    def serve() -> None:
        while left:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as file:
                while left and (request := message(file)):
                    if request.startswith(b"GET /v1/run "):
                        peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                        continue
                    requests.append(re.sub(rb"X-Edgemeta-Number: [0-9a-f]{16}\r\n", b"", request))
                    peer.sendall(left.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
