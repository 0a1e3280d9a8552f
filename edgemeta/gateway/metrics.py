"""What a gateway says to Prometheus: its status as numbers, in the text format, version 0.0.4.

Labels are words of fixed lists, and the names of at most so many devices: a series each is what a Prometheus pays for.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edgemeta.fed.progress import Stage
from edgemeta.gateway.standings import Doing
from edgemeta.link.trust import DAY_S

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_DEVICES = 1000  # with series of their own, lowest participant numbers first; all are counted
STATE = {"before": "global", "after": "adapted"}  # of the model that was scored

Labels = Mapping[str, str]
Samples = list[tuple[Labels, float]]


class Family(NamedTuple):
    """A metric and all its series. kind: counter or gauge; help: one line."""

    name: str
    kind: str
    help: str
    samples: Samples


def metrics_of(status: Mapping[str, Any]) -> str:
    """Return a status (`edgemeta.gateway.status`) as text; what is not known is left out."""
    lines = []
    for name, kind, said, samples in _families(status):
        if samples:
            lines += [f"# HELP edgemeta_{name} {said}", f"# TYPE edgemeta_{name} {kind}"]
            lines += [f"edgemeta_{name}{_labelled(labels)} {value!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _families(status: Mapping[str, Any]) -> Iterator[Family]:
    yield Family("build_info", "gauge", "The package's version.", [({"version": status["version"]}, 1)])
    yield Family("run_info", "gauge", "The run at work, by its folder's name.", [({"run": status["run"]}, 1)])
    yield _gauge("uptime_seconds", "How long the gateway has been running.", status["uptime_s"])
    yield _gauge("resident_memory_bytes", "Memory that the gateway has in use.", status["memory_bytes"])
    yield _gauge("disk_free_bytes", "Free space on the disk that has the run.", status["disk_free_bytes"])
    certificate = status["certificate"]
    left_s = certificate and certificate["days_left"] * DAY_S
    yield _gauge("certificate_remaining_seconds", "For how long the certificate is good, in whole days.", left_s)
    connections = status["connections"] or {}
    yield _gauge("connections", "Connections that are open.", connections.get("now"))
    yield _gauge("connections_limit", "How many connections there may be at a time.", connections.get("most"))
    yield from _run(status)
    yield from _devices(status["devices"][:MOST_DEVICES])
    yield _counter("refusals_total", "Requests that were refused.", "reason", status["refusals"])
    yield _counter("errors_total", "What failed as nobody expected.", "during", status["errors"])
    yield Family("sent_bytes_total", "counter", "Bodies of tasks.", [({}, status["bytes_down"])])
    yield Family("received_bytes_total", "counter", "Bodies of updates and scores.", [({}, status["bytes_up"])])


def _run(status: Mapping[str, Any]) -> Iterator[Family]:
    yield _gauge("round", "The round that is open.", status["round"])
    yield _gauge("last_round", "The run's last round.", status["last_round"])
    stages: Samples = [({"stage": stage}, int(stage == status["stage"])) for stage in Stage]
    yield Family("stage", "gauge", "1 for the stage of the round, or over.", stages)
    yield _gauge("stage_remaining_seconds", "Time until the stage's deadline.", status["seconds_left"])
    words = [device["doing"] for device in status["devices"]]
    counts: Samples = [({"doing": word}, words.count(word)) for word in Doing]
    yield Family("devices", "gauge", "Devices that have joined, by what they are doing.", counts)
    yield _gauge("copied_devices", "Names for which two boards speak.", len(status["copied"]))
    losses, scores = status["curves"]["losses"], status["curves"]["scores"]
    yield _gauge("trained_round", "The last round that was trained.", losses[-1][0] if losses else None)
    yield _gauge("training_loss", "Mean loss of that round's training.", losses[-1][1] if losses else None)
    yield _gauge("evaluated_round", "The last round that was evaluated.", scores[-1]["round"] if scores else None)
    last = scores[-1] if scores else {}
    for metric, name in (("accuracy", "accuracy_ratio"), ("loss", "loss")):
        found: Samples = [
            ({"participants": who, "model": state}, last[who][when][metric][0])
            for who in ("known", "new")
            for when, state in STATE.items()
            if metric in (last.get(who, {}).get(when) or {})
        ]
        yield Family(name, "gauge", f"Mean {metric} over participants in that round.", found)


def _devices(devices: list[Mapping[str, Any]]) -> Iterator[Family]:
    heard: Samples = [({"device": one["name"]}, one["heard_s"]) for one in devices if one["heard_s"] is not None]
    yield Family("device_silent_seconds", "gauge", "Time since a device was last heard.", heard)
    counted: Samples = [({"device": one["name"]}, one["counted"]) for one in devices]
    yield Family("device_counted_round", "gauge", "The last round in which a device's update counted.", counted)
    refused: Samples = [({"device": one["name"]}, sum(one["refusals"].values())) for one in devices]
    yield Family("device_refusals_total", "counter", "Requests of a device that were refused.", refused)


def _gauge(name: str, said: str, value: float | None) -> Family:
    return Family(name, "gauge", said, [] if value is None else [({}, value)])


def _counter(name: str, said: str, label: str, counts: Mapping[str, int]) -> Family:
    return Family(name, "counter", said, [({label: key}, count) for key, count in sorted(counts.items())])


def _labelled(labels: Labels) -> str:
    escaped = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{escaped}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
