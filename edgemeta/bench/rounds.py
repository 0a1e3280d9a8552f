"""What federation costs beside the training itself, measured with real processes on loopback.

    python -m edgemeta.bench.rounds [--data SPEC] [--json]

Round overhead: `cnn` (2.2 million parameters), two client processes, one local step on one picture, no evaluation.
Memory: resident, as Linux counts it. The many clients are threads of this process that speak the protocol and train
nothing, as only the server's memory is looked at; every fourth one reads slowly.
"""

import argparse
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgemeta.bench.loopback import Process, device, ended, gateway, memory_mb, records
from edgemeta.config import config_from, to_toml
from edgemeta.fed.client import Update
from edgemeta.fed.messages import encode_evaluation, encode_update

ROUNDS, SLOW_BLOCK, SLOW_S = 30, 1 << 16, 0.02
SCORES = {"loss": 1.0, "accuracy": 0.5}
SYNTHETIC = "synthetic:samples=600"
TARGETS = {
    "round_s": 0.15,
    "idle_server_mb": 55,
    "idle_client_mb": 60,
    "client_peak_mb": 130,
    "server_peak_2_clients_mb": 100,
    "server_peak_64_over_2": 1.1,
}


def measure(folder: Path, source: str) -> dict[str, float]:
    """Return the figures that TARGETS names."""
    figures = _rounds(folder / "rounds") | _idle(folder / "idle", source)
    figures["client_peak_mb"] = _client_peak(folder / "peak")
    two, many = (_server_peak(folder / f"{count}-clients", count) for count in (2, 64))
    return figures | {
        "server_peak_2_clients_mb": two,
        "server_peak_64_clients_mb": many,
        "server_peak_64_over_2": round(many / two, 3),
    }


def _write(folder: Path, participants: int, source: str = SYNTHETIC, **phase: Any) -> Path:
    folder.mkdir()
    settings = {
        "model": {"name": "cnn"},
        "data": {"source": source, "participants": participants, "partition": "iid"},
        "phases": [{"algorithm": "fedavg", **phase}],
        "evaluation": {"every": 100_000, "adapt_steps": 1},
    }
    (folder / "run.toml").write_text(to_toml(config_from(settings)))
    return folder / "run.toml"


def _devices(url: str, folder: Path, count: int) -> list[Process]:
    return [device(url, folder / f"device-{k}", "--data", SYNTHETIC, "--partition-id", str(k)) for k in range(count)]


def _rounds(folder: Path) -> dict[str, float]:
    config = _write(folder, 2, rounds=ROUNDS, local_steps=1, batch_size=1)
    with gateway(config, folder / "state") as (_, url), ended(*_devices(url, folder, 2)) as clients:
        for client in clients:
            client.wait()
        seconds = [record["seconds"] for record in records(folder / "state", 0)[2:-1]]  # the last one is evaluated
    return {"round_s": round(median(seconds), 4), "round_s_worst": max(seconds)}


def _idle(folder: Path, source: str) -> dict[str, float]:
    config = _write(folder, 2, source, rounds=1)
    with gateway(config, folder / "state") as (server, url):
        time.sleep(2)
        before = memory_mb(server)
        with ended(device(url, folder / "device-0", "--data", source, "--partition-id", "0")) as (client,):
            while client.poll() is None and "joined" not in (folder / "device-0.log").read_text():
                time.sleep(0.1)
            time.sleep(3)
            return {"idle_server_mb": round(before, 1), "idle_client_mb": round(memory_mb(client), 1)}


def _client_peak(folder: Path) -> float:
    config, peak = _write(folder, 2, rounds=3, local_steps=5, batch_size=32), 0.0
    with gateway(config, folder / "state") as (_, url), ended(*_devices(url, folder, 2)) as clients:
        while clients[0].poll() is None:
            try:
                peak = max(peak, memory_mb(clients[0], peak=True))
            except (OSError, IndexError):  # it has just ended
                break
            time.sleep(0.02)
    return round(peak, 1)


def _server_peak(folder: Path, count: int) -> float:
    config = _write(folder, count, rounds=1)
    with gateway(config, folder / "state") as (server, url):
        threads = [threading.Thread(target=_pretend, args=(url, k, k % 4 == 1)) for k in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return round(memory_mb(server, peak=True), 1)


def _pretend(url: str, number: int, slow: bool) -> None:
    """Take part as a device whose training changes nothing."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)

    def ask(method: str, path: str, body: bytes | None = None, session: str = "") -> tuple[int, bytes]:
        connection.request(method, path, body, {"Authorization": f"Bearer {session}"})
        answer = connection.getresponse()
        parts = []
        while part := answer.read(SLOW_BLOCK):
            parts.append(part)
            if slow:
                time.sleep(SLOW_S)
        return answer.status, b"".join(parts)

    who = {"name": f"pretended-{number}", "version": 1, "key": f"{number:032d}", "partition_id": number}
    joined = json.loads(ask("POST", "/v1/join", json.dumps(who).encode())[1])
    while True:
        status, task = ask("GET", "/v1/work?wait=30", session=joined["session"])
        if status == 410:
            return
        if status == 200:
            header = json.loads(task[8 : 8 + int.from_bytes(task[:8], "little")])
            round_number, train = int(header["__metadata__"]["round"]), header["__metadata__"]["kind"] == "train"
            delta = np.zeros(header["theta"]["shape"], np.float32)
            update = Update({"theta": delta}, {}, samples=10, loss=1.0, gradient_evaluations=1)
            body = b"".join(encode_update(update, round_number, header["__metadata__"]["layout"]))
            scores = {"samples": 10, "before": SCORES, "after": SCORES, "grid": []}
            what = ("update", body) if train else ("evaluation", encode_evaluation(scores))
            ask("POST", f"/v1/rounds/{round_number}/{what[0]}", what[1], joined["session"])


def main() -> None:
    """Measure, and print the figures beside what is aimed for."""
    parser = argparse.ArgumentParser(prog="python -m edgemeta.bench.rounds", description="Measure federation.")
    parser.add_argument("--data", default=SYNTHETIC, help="what the idle client has, say the path of CIFAR-10")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.data)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        aim = TARGETS.get(name)
        told = "" if aim is None else f"  (at most {aim:g}: {'reached' if value <= aim else 'MISSED'})"
        print(f"{name:28s} {value:8.3f}{told}")


if __name__ == "__main__":
    main()
