"""A round's record as a line: for people, and with its numbers for a log."""

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


def round_facts(record: Mapping[str, Any], last_round: int | None) -> dict[str, Any]:
    """Return a round's record for a log: its line as the event, and its numbers; accuracies are shares."""
    kept = (
        "round",
        "phase",
        "algorithm",
        "train_loss",
        "participants",
        "failures",
        "bytes_down",
        "bytes_up",
        "seconds",
    )
    facts = {"event": round_line(record, last_round)} | {
        key: record[key] for key in kept if record[key] not in (None, "")
    }
    for key, name in (("evaluation", "accuracy"), ("evaluation_new", "accuracy_new")):
        for when in ("before", "after"):
            if accuracy := ((record.get(key) or {}).get(when) or {}).get("accuracy"):
                facts[f"{name}_{when}"] = accuracy["mean"]
    return facts


def before_after(evaluation: Mapping[str, Any]) -> str:
    """Return the mean accuracy before and after adaptation, in per cent; the loss where there is no accuracy.

    Where every participant has its own classes, there is none before.
    """
    if evaluation["before"] is None:
        return f"{100 * evaluation['after']['accuracy']['mean']:.1f}%"
    if not all("accuracy" in evaluation[when] for when in ("before", "after")):
        return " -> ".join(f"{evaluation[when]['loss']['mean']:.3f}" for when in ("before", "after"))
    return " -> ".join(f"{100 * evaluation[when]['accuracy']['mean']:.1f}%" for when in ("before", "after"))
