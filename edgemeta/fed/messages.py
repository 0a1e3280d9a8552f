"""What travels between coordinator and participants: tensors with a few strings of metadata (safetensors).

The same bytes in a simulation and over HTTP, so that both count the same.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.config import DataConfig, EvaluationConfig, PhaseConfig
from edgemeta.errors import InputError, ModelFileError, StorageError
from edgemeta.fed.client import Update
from edgemeta.fed.clipping import Norms, norm
from edgemeta.fed.progress import Stage
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.streams import Stream, generator
from edgemeta.fed.upload import FLOAT32, decode, encode
from edgemeta.meta import LOSS_CEILING
from edgemeta.meta.learners import LEARNERS, keeps_head, learner, sizes
from edgemeta.meta.maml import RATES
from edgemeta.meta.rivals import HEAD
from edgemeta.nn import Layout, Model, Vector
from edgemeta.nn.files import FORMAT, MAX_HEADER_BYTES, encode_header, encode_tensors, opened, read_tensors
from edgemeta.reading import file_size
from edgemeta.records import record_from

MAX_SAMPLES = 1_000_000_000  # more than a board can hold; a count above it is a mistake or an attack on the mean
FIRST = {  # the settings that devices of the first release know: a later one is told only where it is not the default
    *("name", "algorithm", "rounds", "local_steps", "local_epochs", "batch_size", "lr", "momentum", "weight_decay"),
    *("lr_decay", "inner_lr", "inner_steps", "every", "adapt_steps", "adapt_lr", "support", "grid"),
    *("participants", "held_out", "partition", "validation", "label_noise", "pixel_noise", "noisy_participants"),
}


@dataclass(frozen=True)
class Work:
    """A task for one participant. kind: TRAIN or EVALUATE; counted: the last round in which its update counted."""

    kind: Stage
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

    @property
    def algorithm(self) -> str | None:
        """The learner whose vectors travel with the task; None: theta alone."""
        return self.recipe.algorithm if self.kind is Stage.TRAIN else None

    def sizes(self, model: Model, there: Collection[str]) -> dict[str, int]:
        """Return how many numbers each vector of the task has; an evaluation's may have a head or rates beside theta.

        there: the names of those that came.
        """
        expected = sizes(model, self.algorithm)
        if self.kind is Stage.EVALUATE and HEAD in there and model.headed:
            expected |= {HEAD: model.headed.layout.size - model.layout.size}
        if self.kind is Stage.EVALUATE and RATES in there:
            expected |= {RATES: (model.headed or model).layout.size}
        return expected

    def header(self, sizes: Mapping[str, int]) -> bytes:
        """Return the message's bytes before the float32 vectors, which follow in the order of `sizes`."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("recipe", "evaluation")}
        settings = told(self.recipe if self.kind is Stage.TRAIN else self.evaluation)
        metadata = {key: str(value) for key, value in plain.items()} | {"recipe": json.dumps(settings)}
        if self.kind is Stage.EVALUATE:
            metadata["batch_size"] = str(self.recipe.batch_size)
            if keeps_head(self.recipe.algorithm):  # which a device scores the model with
                metadata["algorithm"] = self.recipe.algorithm
        return encode_header({name: (FLOAT32, (size,)) for name, size in sizes.items()}, {"format": FORMAT, **metadata})


def told(settings: PhaseConfig | EvaluationConfig | DataConfig) -> dict[str, Any]:
    """Return the settings that a device is told: those of the first release, and of later ones what is not the default.

    So a device of an earlier release takes part in what it knows.
    """
    usual = asdict(type(settings)())
    return {
        key: value
        for key, value in asdict(settings).items()
        if value is not None and (key in FIRST or value != usual[key])
    }


def task_bytes(header: bytes, sizes: Mapping[str, int]) -> int:
    """Return what a task weighs, given its header."""
    return len(header) + FLOAT32.itemsize * sum(sizes.values())


def most_task_bytes(model: Model) -> int:
    """Return what a task for a network weighs at most, whichever the learner."""
    return 8 + MAX_HEADER_BYTES + FLOAT32.itemsize * max(sum(sizes(model, name).values()) for name in LEARNERS)


def read_work(path: Path, model: Model) -> tuple[Work, dict[str, Vector]]:
    """Return a task and the vectors that came with it.

    An evaluation's task has theta, and perhaps a head or rates, and nothing else. Raises ModelFileError when it is
    damaged or for another layout, StorageError when it cannot be read.
    """
    tensors, metadata = read_tensors(path)
    try:
        kind, settings = Stage(metadata["kind"]), json.loads(metadata["recipe"])
        train = kind is Stage.TRAIN
        numbers = {key: int(metadata[key]) for key in ("round", "phase", "participant", "seed", "counted")}
        if train:
            recipe = record_from(PhaseConfig, settings)
        else:
            named = {key: metadata[key] for key in ("algorithm",) if key in metadata}
            recipe = record_from(PhaseConfig, {"batch_size": int(metadata["batch_size"])} | named)
        learner(recipe.algorithm)  # or it is refused by name
        evaluation = EvaluationConfig() if train else record_from(EvaluationConfig, settings)
        if metadata["layout"] != model.layout.fingerprint:
            raise InputError(f"it is for layout {metadata['layout']}, and this device has {model.layout.fingerprint}")
        work = Work(kind, recipe=recipe, evaluation=evaluation, layout=metadata["layout"], **numbers)
        expected = work.sizes(model, tensors)
        return work, {name: vector[:] for name, vector in decode(tensors, expected, "float32").items()}
    except (KeyError, ValueError, TypeError, RecursionError, InputError) as error:
        raise ModelFileError(f"the task in {path} cannot be used: {error}") from None


def encode_update(update: Update, round_number: int, layout: str, codec: str = "float32") -> list[bytes | memoryview]:
    """Return an update as the parts of a message. codec: of `edgemeta.fed.upload`, as the task says."""
    return encode_tensors(encode(update.shared, codec), update_metadata(update, round_number, layout))


def update_metadata(update: Update, round_number: int, layout: str) -> dict[str, str]:
    """Return what an update's message says besides its tensors."""
    metrics = {"loss": update.loss, "gradient_evaluations": update.gradient_evaluations}
    return {
        "format": FORMAT,
        "round": str(round_number),
        "layout": layout,
        "samples": str(update.samples),
        "metrics": json.dumps(metrics),
    }


def encode_evaluation(scores: Mapping[str, Any]) -> bytes:
    """Return a participant's scores as a message."""
    return json.dumps({"metrics": dict(scores)}).encode()


@dataclass(frozen=True)
class Delivered:
    """What the coordinator keeps in memory of an accepted update; its numbers stay in the file.

    norms: by vector; round: whose task it is, which may be an earlier one than the round in which it counts.
    """

    samples: int
    loss: float
    gradient_evaluations: int
    bytes: int
    norms: Norms
    round: int


def admit_update(path: Path, rounds: range, layout: Layout, sizes: Mapping[str, int], codec: str) -> Delivered:
    """Return what an update's file says, or raise Refused: the checks that need no knowledge of who sent it.

    rounds: one of which its task may be. sizes: of the vectors that travel in these; codec: how.

    Raises StorageError when the file cannot be read.
    """
    try:
        with opened(path) as (tensors, metadata):
            if metadata.get("layout") != layout.fingerprint:
                raise Refused(
                    Reason.WRONG_LAYOUT, f"layout {metadata.get('layout')}: this run has {layout.fingerprint}"
                )
            said = metadata.get("round", "")
            if said not in map(str, rounds):
                where = "it was sent to " + " or ".join(map(str, rounds))
                raise Refused(Reason.WRONG_ROUND, f"the update says round {said or None}: {where}")
            size, vectors = file_size(path), decode(tensors, sizes, codec)
            norms = {name: norm(vector) for name, vector in vectors.items()}
            if not all(map(math.isfinite, norms.values())):
                raise Refused(Reason.NOT_FINITE, "the update holds NaN or infinity: training diverged on the device")
    except StorageError:
        raise
    except ModelFileError as error:
        if isinstance(error.__cause__, StorageError):  # it is not there
            raise error.__cause__ from None
        raise Refused(Reason.BAD_TENSORS, f"the update cannot be used: {error.__cause__ or 'cut short'}") from None
    except InputError as error:
        raise Refused(Reason.WRONG_SHAPE, str(error)) from None
    samples, loss, evaluations = _counts(metadata)
    return Delivered(samples, loss, evaluations, size, norms, int(said))


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
    return samples, min(max(loss, -LOSS_CEILING), LOSS_CEILING), evaluations  # sums of losses stay numbers


def admit_evaluation(
    body: bytes, settings: EvaluationConfig, *, classifies: bool, own: bool = False, heads: bool = False
) -> dict[str, Any]:
    """Return one participant's scores from the body of an evaluation message, or raise Refused.

    classifies: whether the model does; then each score needs an accuracy, and otherwise none has one. own: whether
    every participant has its own classes, and says how many; then there is no score before adaptation, but from one
    that has a head of its own, where such heads are trained.
    """
    limits = {"loss": LOSS_CEILING} | ({"accuracy": 1.0} if classifies else {})
    try:
        metrics = json.loads(body)["metrics"]
        samples = metrics["samples"]
        if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
            raise ValueError(f"{samples!r} samples")
        grid = [
            {"steps": steps, "support": support, **_scores(cell, limits)}
            for (steps, support), cell in zip(settings.grid, metrics["grid"], strict=True)
        ]
        without = own and not (heads and metrics["before"])
        before, after = None if without else _scores(metrics["before"], limits), _scores(metrics["after"], limits)
        classes = {"classes": metrics["classes"]} if own else {}
        if own and (type(classes["classes"]) is not int or not 1 <= classes["classes"] <= MAX_SAMPLES):
            raise ValueError(f"{classes['classes']!r} classes")
        episodes = {"episodes": _episodes(metrics["episodes"], settings)} if settings.episodes else {}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(
            Reason.BAD_EVALUATION, f"expected {{'metrics': samples, scores before, after and over the grid}}: {error!r}"
        ) from None
    return {"samples": samples, "before": before, "after": after, "grid": grid, **classes, **episodes}


def _episodes(found: Sequence[Mapping[str, Any]], settings: EvaluationConfig) -> list[dict[str, Any]]:
    """Return a participant's shares of right answers in episodes; None where it has too few classes for them."""

    def share(cell: Mapping[str, Any]) -> float | None:
        return None if cell["accuracy"] is None else _scores(cell, {"accuracy": 1.0})["accuracy"]

    pairs = zip(settings.shots, found, strict=True)
    return [{"ways": settings.ways, "shots": shots, "accuracy": share(cell)} for shots, cell in pairs]


def _scores(scores: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of which there are limits, each a number from 0 to its limit."""
    found = {metric: scores[metric] for metric in limits}
    if not all(type(value) in (int, float) and 0 <= value <= limits[metric] for metric, value in found.items()):
        raise ValueError(f"{found}: expected numbers from 0, and at most {dict(limits)}")
    return {metric: float(value) for metric, value in found.items()}
