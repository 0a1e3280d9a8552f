"""A round's record as a line for people."""

from collections.abc import Mapping
from typing import Any


def round_line(record: Mapping[str, Any], last_round: int | None) -> str:
    """Return a round's record as one line."""
    of = "" if last_round is None else f"/{last_round}"
    parts = [f"round {record['round']}{of}", record["phase"]]
    if record["train_loss"] is not None:
        parts.append(f"loss {record['train_loss']:.4f}")
    for key, label in (("evaluation", "accuracy"), ("evaluation_new", "new")):
        if key in record:
            parts.append(f"{label} {before_after(record[key])}")
    if record["failures"]:
        parts.append(f"{record['failures']} failed")
    return "  ".join([*parts, f"{record['seconds']:.1f} s"])


def before_after(evaluation: Mapping[str, Any]) -> str:
    """Return the mean accuracy before and after adaptation, in per cent; the loss where there is no accuracy.

    Where every participant has its own classes, there is none before.
    """
    if evaluation["before"] is None:
        return f"{100 * evaluation['after']['accuracy']['mean']:.1f}%"
    if not all("accuracy" in evaluation[when] for when in ("before", "after")):
        return " -> ".join(f"{evaluation[when]['loss']['mean']:.3f}" for when in ("before", "after"))
    return " -> ".join(f"{100 * evaluation[when]['accuracy']['mean']:.1f}%" for when in ("before", "after"))
