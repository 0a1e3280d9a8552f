"""How far a run has come, in few numbers: what is drawn of its history, however long that is."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

MOST = 64  # points of a curve


class Curves:
    """losses: (round, training loss) of trained rounds; scores: (round, scores) of evaluated ones, see `add`."""

    def __init__(self, history: Iterable[Mapping[str, Any]]) -> None:
        self.losses: list[tuple[int, float]] = []
        self.scores: list[tuple[int, dict[str, Any]]] = []
        for record in history:
            with suppress(KeyError, TypeError, ValueError):  # whoever looks after the gateway may write in that file
                self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a round's record in: its loss, and how participants' scores spread before and after adaptation.

        Scores: for "known" and "new" participants "before" (null with own classes), "after" and, with
        own classes, "chance"; each metric of these as [mean, 10th, 90th percentile].
        """
        if (loss := record["train_loss"]) is not None:
            _append(self.losses, int(record["round"]), _short(loss))
        of = {"known": record.get("evaluation"), "new": record.get("evaluation_new")}
        if scores := {who: _scores(evaluation) for who, evaluation in of.items() if evaluation}:
            _append(self.scores, int(record["round"]), scores)

    def to_json(self) -> dict[str, Any]:
        """Return both, ready for JSON."""
        scores = [{"round": number, **scores} for number, scores in self.scores]
        return {"losses": [*map(list, self.losses)], "scores": scores}


def _append(points: list[Any], number: int, point: Any) -> None:
    """Add what a round came to; of too many the one goes that is nearest to both of its neighbours."""
    points.append((number, point))
    if len(points) > MOST:
        del points[min(range(1, MOST), key=lambda i: points[i + 1][0] - points[i - 1][0])]


def _scores(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = {when: _spreads(evaluation[when]) for when in ("before", "after")}
    return scores | ({"chance": float(evaluation["chance"])} if "chance" in evaluation else {})


def _spreads(metrics: Mapping[str, Any] | None) -> dict[str, list[float]] | None:
    if metrics is None:
        return None
    return {
        name: [_short(metrics[name][which]) for which in ("mean", "p10", "p90")]
        for name in ("accuracy", "loss")
        if name in metrics
    }


def _short(value: float) -> float:
    """Return a number with five digits; raises ValueError for what is no finite one."""
    if not math.isfinite(value):
        raise ValueError(value)
    return float(f"{value:.5g}")
