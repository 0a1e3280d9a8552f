"""What travels between coordinator and participants: tensors with a few strings of metadata (safetensors).

The same bytes in a simulation and over HTTP, so that both count the same.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.config import EvaluationConfig, PhaseConfig
from edgemeta.errors import InputError, ModelFileError
from edgemeta.fed.client import Update
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import LOSS_CEILING
from edgemeta.nn import Layout, Vector
from edgemeta.nn.files import FORMAT, encode_header, encode_tensors, read_tensors
from edgemeta.records import record_from

MAX_SAMPLES = 1_000_000_000  # more than a board can hold; a count above it is a mistake or an attack on the mean
FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class Work:
    """A task for one participant. kind: "train" or "evaluate"; counted: the last round in which its update counted."""

    kind: str
    round: int
    phase: int
    participant: int
    seed: int
    recipe: PhaseConfig
    evaluation: EvaluationConfig
    layout: str
    counted: int

    def draw(self, step: int) -> np.random.Generator:
        """Return the generator of one local step."""
        return generator(self.seed, Stream.TRAINING, self.phase, self.round, self.participant, step)

    def evaluation_rng(self) -> np.random.Generator:
        """Return the generator that draws the support sets of an evaluation."""
        return generator(self.seed, Stream.EVALUATION, self.round, self.participant)

    def header(self, size: int) -> bytes:
        """Return the message's bytes before the `size` float32 parameters."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("recipe", "evaluation")}
        settings = asdict(self.recipe) if self.kind == "train" else asdict(self.evaluation)
        settings = {key: value for key, value in settings.items() if value is not None}
        batch = {} if self.kind == "train" else {"batch_size": str(self.recipe.batch_size)}
        metadata = {key: str(value) for key, value in plain.items()} | {"recipe": json.dumps(settings)} | batch
        return encode_header({"theta": (FLOAT32, (size,))}, {"format": FORMAT, **metadata})


def read_work(path: Path, layout: Layout) -> tuple[Work, Vector]:
    """Return a task and its parameters; raises ModelFileError when it is damaged or for another layout."""
    tensors, metadata = read_tensors(path)
    try:
        kind, settings = metadata["kind"], json.loads(metadata["recipe"])
        train = kind == "train"
        numbers = {key: int(metadata[key]) for key in ("round", "phase", "participant", "seed", "counted")}
        recipe = record_from(PhaseConfig, settings if train else {"batch_size": int(metadata["batch_size"])})
        evaluation = EvaluationConfig() if train else record_from(EvaluationConfig, settings)
        theta = tensors["theta"]
        if metadata["layout"] != layout.fingerprint or theta.shape != (layout.size,) or theta.dtype != FLOAT32:
            raise InputError(f"it is for layout {metadata['layout']}, and this device has {layout.fingerprint}")
    except (KeyError, ValueError, TypeError, RecursionError, InputError) as error:
        raise ModelFileError(f"the task in {path} cannot be used: {error}") from None
    return Work(kind, recipe=recipe, evaluation=evaluation, layout=metadata["layout"], **numbers), theta


def encode_update(update: Update, round_number: int, layout: str) -> list[bytes | memoryview]:
    """Return an update as the parts of a message."""
    metrics = {"loss": update.loss, "gradient_evaluations": update.gradient_evaluations}
    metadata = {
        "format": FORMAT,
        "round": str(round_number),
        "layout": layout,
        "samples": str(update.samples),
        "metrics": json.dumps(metrics),
    }
    return encode_tensors(dict(update.shared), metadata)


def encode_evaluation(scores: Mapping[str, Any]) -> bytes:
    """Return a participant's scores as a message."""
    return json.dumps({"metrics": dict(scores)}).encode()


@dataclass(frozen=True)
class Delivered:
    """What the coordinator keeps in memory of an accepted update; its numbers stay in the file."""

    samples: int
    loss: float
    gradient_evaluations: int
    bytes: int


def admit_update(path: Path, round_number: int, layout: Layout) -> Delivered:
    """Return what an update's file says, or raise Refused: the checks that need no knowledge of who sent it."""
    try:
        tensors, metadata = read_tensors(path)
    except ModelFileError as error:
        raise Refused(Reason.BAD_TENSORS, str(error)) from None
    if metadata.get("layout") != layout.fingerprint:
        raise Refused(Reason.WRONG_LAYOUT, f"layout {metadata.get('layout')}: this run has {layout.fingerprint}")
    if metadata.get("round") != str(round_number):
        raise Refused(
            Reason.WRONG_ROUND, f"the update says round {metadata.get('round')}: it was sent to {round_number}"
        )
    theta = tensors.get("theta")
    if len(tensors) != 1 or theta is None or theta.shape != (layout.size,) or theta.dtype != FLOAT32:
        raise Refused(Reason.WRONG_SHAPE, f"expected one tensor 'theta' of {layout.size} float32")
    if not all(np.isfinite(theta[start : start + 65536]).all() for start in range(0, layout.size, 65536)):
        raise Refused(Reason.NOT_FINITE, "the update holds NaN or infinity: training diverged on the device")
    samples, loss, evaluations = _counts(metadata)
    return Delivered(samples, loss, evaluations, path.stat().st_size)


def _counts(metadata: Mapping[str, str]) -> tuple[int, float, int]:
    try:
        samples, metrics = int(metadata["samples"]), json.loads(metadata["metrics"])
        loss, evaluations = float(metrics["loss"]), metrics["gradient_evaluations"]
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(Reason.BAD_METADATA, f"samples or metrics are missing or damaged ({error!r})") from None
    if not 1 <= samples <= MAX_SAMPLES:
        raise Refused(Reason.BAD_SAMPLES, f"{samples} samples: expected 1 to {MAX_SAMPLES}")
    if not math.isfinite(loss) or type(evaluations) is not int or not 0 <= evaluations <= MAX_SAMPLES:
        raise Refused(Reason.BAD_METADATA, "expected a finite loss and a number of gradient evaluations")
    return samples, loss, evaluations


def admit_evaluation(body: bytes, settings: EvaluationConfig) -> dict[str, Any]:
    """Return one participant's scores from the body of an evaluation message, or raise Refused."""
    try:
        metrics = json.loads(body)["metrics"]
        samples = metrics["samples"]
        if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
            raise ValueError(f"{samples!r} samples")
        grid = [
            {"steps": steps, "support": support, **_scores(cell)}
            for (steps, support), cell in zip(settings.grid, metrics["grid"], strict=True)
        ]
        before, after = _scores(metrics["before"]), _scores(metrics["after"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(
            Reason.BAD_EVALUATION, f"expected {{'metrics': samples, scores before, after and over the grid}}: {error!r}"
        ) from None
    return {"samples": samples, "before": before, "after": after, "grid": grid}


def _scores(scores: Mapping[str, Any]) -> dict[str, float]:
    limits = {"loss": LOSS_CEILING, "accuracy": 1.0}
    found = {metric: float(scores[metric]) for metric in limits if metric in scores}
    if "loss" not in found or not all(abs(value) <= limits[metric] for metric, value in found.items()):
        raise ValueError(f"{dict(scores)!r} are not finite scores")
    return found
