"""What travels between a ServerApp and its nodes, as Flower's records.

A task has `config` (the run's description and its resolved settings, the round, the stage, and the last round in which
this participant's update counted) and `arrays` (theta, and what travels beside it). A reply has `arrays` and `update`
(the two halves of what a device sends over HTTP), or `scores` (the same bytes), or `refused`; and `metrics`, numbers by
name, for strategies that average those.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemeta.config import RunConfig, config_from, to_toml
from edgemeta.errors import ConfigError, InputError
from edgemeta.fed.client import Update
from edgemeta.fed.description import Description
from edgemeta.fed.messages import Work, encode_evaluation, update_metadata
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.upload import decode, encode
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import encode_tensors

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, RecordDict

ROUND = "server-round"  # as Flower's strategies call it
DELTA = "delta."  # before the names in an update: a mod that takes it for parameters does not find their names
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Told:
    """What a node is told of a run with each task. seconds: for how long an answer to it counts.

    strategy: one of Flower's asks, and no coordinator; it does not say the seconds.
    """

    config: RunConfig
    run: Description
    stage: Stage
    round: int
    counted: int
    seconds: float
    strategy: bool

    @property
    def source(self) -> str:
        """Where the data is that an experiment cuts into parts."""
        return self.config.data.source

    def work(self, participant: int) -> Work:
        """Return the task, for one participant."""
        progress = Progress(round=self.round, stage=self.stage, counted={str(participant): self.counted})
        return Plan(self.config).task(progress, participant, self.run.network.layout)


def said_of(config: RunConfig, network: Model) -> dict[str, str]:
    """Return what is said of a run with each task; its configuration is resolved."""
    run = Description(config.data, config.seed, network, config.model.names, Plan(config).last_round)
    return {"run": json.dumps(run.to_json()), "settings": to_toml(config)}


def read_told(content: "RecordDict", stage: Stage) -> Told:
    """Return what a message says of a run and a stage; raises ConfigError where nobody here can take part in it."""
    try:
        said = content["config"]
        config = config_from(tomllib.loads(str(said["settings"])))
        run = Description.from_json(json.loads(str(said["run"])))
        number, counted = said.get(ROUND, 0), said.get("counted")
        seconds = float(said.get("seconds", config.server.round_deadline_s))
        return Told(config, run, stage, int(number), int(counted or 0), seconds, counted is None)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the message says nothing of a run ({error!r}): is it edgemeta that asks?") from None


def task_message(
    node: int, kind: str, said: Mapping[str, str], work: Work | None, arrays: "ArrayRecord | None", ttl_s: float
) -> Any:
    """Return the message that brings a node a task, or asks it whether it can take part."""
    from flwr.app import ConfigRecord, Message, RecordDict

    round_number, counted = (work.round, work.counted) if work else (0, 0)
    content = RecordDict({"config": ConfigRecord({**said, ROUND: round_number, "counted": counted, "seconds": ttl_s})})
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content, node, kind, ttl=ttl_s, group_id=str(round_number))


def to_arrays(tensors: Arrays) -> "ArrayRecord":
    """Return tensors as Flower carries them, bit by bit."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()})


def to_tensors(arrays: "ArrayRecord") -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a record; raises InputError when they are none."""
    try:
        return {name: array.numpy() for name, array in arrays.items()}
    except (ValueError, TypeError, EOFError, MemoryError) as error:
        raise InputError(f"the arrays cannot be read ({error!r}): expected NumPy's") from None


def vectors_of(content: "RecordDict", told: Told) -> dict[str, Vector]:
    """Return the vectors of a task; raises InputError when they are not those of the run's network."""
    model, tensors = told.run.network, to_tensors(content["arrays"])
    if told.strategy:  # some of them add noise as float64
        tensors = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    expected = told.work(0).sizes(model, tensors)
    return {name: vector[:] for name, vector in decode(tensors, expected, "float32").items()}


def update_records(update: Update, work: Work) -> dict[str, Any]:
    """Return a reply that brings an update to a coordinator."""
    from flwr.app import ConfigRecord

    return {
        "arrays": to_arrays({DELTA + name: t for name, t in encode(update.shared, work.recipe.upload).items()}),
        "update": ConfigRecord(dict(update_metadata(update, work.round, work.layout))),
    }


def score_records(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply that brings scores, also as numbers by name."""
    from flwr.app import ConfigRecord, MetricRecord

    numbers = {
        f"{metric}-{when}": value
        for when in ("before", "after")
        for metric, value in (scores[when] or {}).items()  # own classes: there is none before
    }
    return {
        "scores": ConfigRecord({"body": encode_evaluation(scores)}),
        "metrics": MetricRecord({"num-examples": scores["samples"], **numbers}),
    }


def update_file(content: "RecordDict") -> Iterable[bytes | memoryview]:
    """Return an update as the parts of the file that a coordinator takes; raises InputError when it is none.

    What is in it is judged there, as of every device.
    """
    try:
        arrays, metadata = content["arrays"], content["update"]
    except KeyError as error:
        raise InputError(f"a reply without {error}: expected an update") from None
    deltas = {name.removeprefix(DELTA): tensor for name, tensor in to_tensors(arrays).items()}
    return encode_tensors(deltas, {key: str(value) for key, value in metadata.items()})
