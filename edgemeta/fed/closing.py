"""Closing a training stage: whose updates count, how far each may move the model, and what the run remembers of it."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, cast

from edgemeta.fed.clipping import ROUNDS, together
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Before, Progress
from edgemeta.fed.scores import Record, with_training
from edgemeta.fed.server_step import advance
from edgemeta.fed.standing import Standing, weights
from edgemeta.nn import Model

log = logging.getLogger("edgemeta")


class Closed(NamedTuple):
    """counting: whose updates count; nobody's, where no finite model could be had from enough of them.

    left_out: who had to be left out for the model to be finite. changes: of the progress.
    """

    counting: list[int]
    left_out: list[int]
    changes: dict[str, Any]


def close(
    directory: RunDirectory,
    plan: Plan,
    model: Model,
    progress: Progress,
    updates: Mapping[int, Delivered],
    own: Collection[int],
    standing: Standing,
    name: Callable[[int], str],
) -> Closed:
    """Write the model that a round's updates lead to, and return what the progress is to say of it.

    updates: in order of participant number. own: who brings its own data.
    """
    samples = {k: update.samples for k, update in updates.items()}
    outcome = advance(directory, plan, model, progress, updates, weights(samples, own))
    for k in outcome.left_out:
        of = {"round": progress.round, "device": name(k)}
        log.warning("round %(round)d: the update of %(device)s is left out: with it the model overflows", of)
    for k in outcome.clipped:
        of = {"round": progress.round, "device": name(k)}
        log.warning("round %(round)d: the update of %(device)s is cut down: it is far larger than usual", of)
    bad, counting = {*outcome.clipped, *outcome.left_out}, {k: updates[k] for k in outcome.counted}
    strikes = standing.after(counting.keys() - bad, bad)
    if not counting:
        return Closed([], outcome.left_out, {"strikes": strikes})
    standing.delivered(counting)
    known = [*progress.norms, together(update.norms for update in counting.values())][-ROUNDS:]
    same = plan.phase_of(progress.round + 1) == plan.phase_of(progress.round)
    largest = max(counting, key=lambda k: counting[k].norms["theta"])
    asked = {*progress.cohort, *updates}  # who sleeps may deliver without having been asked in this round
    record = with_training(cast(Record, progress.record), counting.values(), len(asked) - len(counting))
    if late := [k for k, update in counting.items() if update.round < progress.round]:
        record["late"] = late
    if outcome.clipped:
        record["clipped"] = outcome.clipped
    if outcome.left_out:
        record["left_out"] = outcome.left_out
    changes = {
        "model": progress.round,
        "counted": progress.counted | {str(k): update.round for k, update in counting.items()},
        "norms": known if same else [],  # another recipe takes steps of another length
        "before": Before(progress.model, progress.history, progress.counted, progress.norms, [largest]),
        "without": [],
        "record": record,
        "strikes": strikes,
    }
    return Closed(outcome.counted, outcome.left_out, changes)


def repeat(plan: Plan, progress: Progress, standing: Standing, name: Callable[[int], str]) -> dict[str, Any] | None:
    """Return what the progress says when the last round is trained again, without who moved the model furthest.

    None where there is none to repeat. It is done once: what diverges again is not one participant's fault.
    """
    before, number = progress.before, progress.round - 1
    if before is None:
        log.error(
            "round %(round)d: the model diverges on most devices: lower lr or inner_lr", {"round": progress.round}
        )
        return None
    log.error(
        "round %(round)d: the model diverges on most devices: round %(repeated)d is repeated without %(device)s, "
        "whose update was the largest",
        {"round": progress.round, "repeated": number, "device": ", ".join(map(name, before.largest))},
    )
    return {
        "strikes": standing.after([], before.largest),
        "round": number,
        "model": before.model,
        "history": before.history,
        "counted": before.counted,
        "norms": before.norms,
        "record": {**plan.new_record(number)},
        "cohort": [],
        "attempt": progress.attempt + 1,  # another draw than the last time
        "without": before.largest,
        "before": None,
    }
