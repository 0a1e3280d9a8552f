"""Participants' scores, put together into what a round's record says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Scores = Mapping[str, Any]


def combine(participants: Sequence[Scores]) -> dict[str, Any]:
    """Return {"before": {metric: spread}, "after": ..., "grid": [{"steps", "support", metric: spread}]}.

    participants: what `edgemeta.meta.evaluate` returned for each, in order of participant number. A spread is
    {"mean", "p10", "p50", "p90"}: the mean weighted by test samples, and percentiles over participants, as LEAF prints.
    """
    weights = [scores["samples"] for scores in participants]
    grids = [scores["grid"] for scores in participants]
    return {
        "before": _spreads([scores["before"] for scores in participants], weights),
        "after": _spreads([scores["after"] for scores in participants], weights),
        "grid": [
            {"steps": cell[0]["steps"], "support": cell[0]["support"], **_spreads(cell, weights)}
            for cell in zip(*grids, strict=True)
        ],
    }


def summarize(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a whole run took, and the last scores that it reached."""
    totals = {
        key: sum(record[key] for record in history)
        for key in ("seconds", "bytes_down", "bytes_up", "gradient_evaluations")
    }
    summary: dict[str, Any] = {"rounds": history[-1]["round"], **totals}
    for key in ("evaluation", "evaluation_new"):
        found = [record[key] for record in history if key in record]
        summary |= {key: found[-1]} if found else {}
    return summary


def _spreads(scores: Sequence[Scores], weights: Sequence[int]) -> dict[str, dict[str, float]]:
    return {
        metric: _spread([score[metric] for score in scores], weights)
        for metric in ("accuracy", "loss")
        if all(metric in score for score in scores)
    }


def _spread(values: Sequence[float], weights: Sequence[int]) -> dict[str, float]:
    p10, p50, p90 = np.percentile(values, [10, 50, 90]).tolist()
    return {"mean": float(np.average(values, weights=weights)), "p10": p10, "p50": p50, "p90": p90}
