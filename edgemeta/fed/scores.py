"""What is written down of a round and of a run: the types, and how participants' scores come together in them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from edgemeta.fed.messages import Delivered


class Spread(TypedDict):
    """Over participants: the mean weighted by test samples, and percentiles, as LEAF prints them."""

    mean: float
    p10: float
    p50: float
    p90: float


Spreads = dict[str, Spread]  # by metric: "accuracy" (of classifiers) and "loss"


class Evaluation(TypedDict):
    """Scores of the global model as it is, adapted, and over the grid: there with "steps" and "support" beside them.

    Where every participant has its own classes, before is over those that have a head of their own, None where nobody
    has, and chance is the mean over participants of one over their number of classes.
    """

    before: Spreads | None
    after: Spreads
    grid: list[dict[str, Any]]
    chance: NotRequired[float]
    episodes: NotRequired[list[dict[str, Any]]]


class Record(TypedDict):
    """One round; round 0 is the start, evaluated only. Bytes are those of message bodies, evaluation included."""

    round: int
    phase: str
    algorithm: str
    seconds: float
    participants: int
    failures: int
    bytes_down: int
    bytes_up: int
    gradient_evaluations: int
    train_loss: float | None
    evaluation: NotRequired[Evaluation]
    evaluation_new: NotRequired[Evaluation]
    evaluation_missing: NotRequired[list[int]]
    clipped: NotRequired[list[int]]
    left_out: NotRequired[list[int]]
    late: NotRequired[list[int]]
    changed: NotRequired[dict[str, int | float]]  # settings that hold from this round on


class Summary(TypedDict):
    """A whole run: sums over its rounds, and the last scores.

    left_out, of a simulation: how many samples of the data ("train", "test") no participant has, and "why", a list of
    sentences, which also say which classes cannot be learned or scored.
    """

    rounds: int
    seconds: float
    bytes_down: int
    bytes_up: int
    gradient_evaluations: int
    evaluation: NotRequired[Evaluation]
    evaluation_new: NotRequired[Evaluation]
    left_out: NotRequired[dict[str, Any]]


def new_record(round_number: int, phase: str, algorithm: str) -> Record:
    """Return the record of a round of which nothing is known yet."""
    return {
        "round": round_number,
        "phase": phase,
        "algorithm": algorithm,
        "seconds": 0.0,
        "participants": 0,
        "failures": 0,
        "bytes_down": 0,
        "bytes_up": 0,
        "gradient_evaluations": 0,
        "train_loss": None,
    }


def with_training(record: Record, updates: Collection[Delivered], failures: int) -> Record:
    """Return a record with what the updates of its round come to; the loss is weighted by samples, as they are."""
    samples = sum(update.samples for update in updates)
    return {
        **record,
        "participants": len(updates),
        "failures": failures,
        "bytes_up": sum(update.bytes for update in updates),
        "gradient_evaluations": sum(update.gradient_evaluations for update in updates),
        "train_loss": sum(update.loss * update.samples for update in updates) / samples,
    }


def with_evaluation(record: Record, scores: Mapping[int, Any], new: Collection[int], missing: Sequence[int]) -> Record:
    """Return a record with what participants' scores come to; new: who takes no part in training, or none yet."""
    record = {**record, "bytes_up": record["bytes_up"] + sum(one["bytes"] for one in scores.values())}
    if known := [scores[k] for k in sorted(scores) if k not in new]:
        record["evaluation"] = combine(known)
    if strangers := [scores[k] for k in sorted(scores) if k in new]:
        record["evaluation_new"] = combine(strangers)
    if missing:
        record["evaluation_missing"] = [*missing]
    return record


def combine(participants: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Return what participants' scores come to.

    participants: what `edgemeta.meta.evaluate` returned for each, in order of participant number.
    """
    weights = [scores["samples"] for scores in participants]
    grids = [scores["grid"] for scores in participants]
    headed = [scores for scores in participants if scores["before"] is not None]
    evaluation: Evaluation = {
        "before": _spreads([scores["before"] for scores in headed], [scores["samples"] for scores in headed])
        if headed
        else None,
        "after": _spreads([scores["after"] for scores in participants], weights),
        "grid": [
            {"steps": cell[0]["steps"], "support": cell[0]["support"], **_spreads(cell, weights)}
            for cell in zip(*grids, strict=True)
        ],
    }
    if "classes" in participants[0]:
        evaluation["chance"] = float(np.mean([1 / scores["classes"] for scores in participants]))
    if episodes := [scores["episodes"] for scores in participants if "episodes" in scores]:
        evaluation["episodes"] = [_over_participants(cell) for cell in zip(*episodes, strict=True)]
    return evaluation


def _over_participants(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one kind of episodes over participants, who count the same: each had as many of them."""
    shares = [one["accuracy"] for one in scores if one["accuracy"] is not None]
    accuracy = _spread(shares, [1] * len(shares)) if shares else None
    return {"ways": scores[0]["ways"], "shots": scores[0]["shots"], "participants": len(shares), "accuracy": accuracy}


def summarize(history: Sequence[Record]) -> Summary:
    """Return what a whole run took, and the last scores that it reached."""
    summary: Summary = {
        "rounds": max((record["round"] for record in history), default=0),  # none: the file was lost
        "seconds": sum(record["seconds"] for record in history),
        "bytes_down": sum(record["bytes_down"] for record in history),
        "bytes_up": sum(record["bytes_up"] for record in history),
        "gradient_evaluations": sum(record["gradient_evaluations"] for record in history),
    }
    for record in history:
        if "evaluation" in record:
            summary["evaluation"] = record["evaluation"]
        if "evaluation_new" in record:
            summary["evaluation_new"] = record["evaluation_new"]
    return summary


def _spreads(scores: Sequence[Mapping[str, Any]], weights: Sequence[int]) -> Spreads:
    return {
        metric: _spread([score[metric] for score in scores], weights)
        for metric in ("accuracy", "loss")
        if all(metric in score for score in scores)
    }


def _spread(values: Sequence[float], weights: Sequence[int]) -> Spread:
    p10, p50, p90 = np.percentile(values, [10, 50, 90]).tolist()
    return {"mean": float(np.average(values, weights=weights)), "p10": p10, "p50": p50, "p90": p90}
