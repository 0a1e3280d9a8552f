"""What a node does with a message: it looks whether it can take part, trains, or scores a model.

What it keeps to itself between rounds is in its context's state, under the number of the round that left it; which of
it counts the next task says. A reply says what cannot be done here; to a strategy of Flower's it is raised.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from edgemeta.device.own import own_part
from edgemeta.errors import ConfigError, DivergedError, EdgemetaError
from edgemeta.fed.client import client_update
from edgemeta.fed.participants import Participant
from edgemeta.fed.private import OwnHead, outlived
from edgemeta.fed.progress import Stage
from edgemeta.flower.records import (
    Told,
    read_told,
    score_records,
    to_arrays,
    to_tensors,
    update_records,
    vectors_of,
)
from edgemeta.flower.site import check_site, evaluated, trained
from edgemeta.meta import evaluate as scored
from edgemeta.meta.learners import keeps_head
from edgemeta.meta.personal_heads import OWN_HEAD
from edgemeta.nn import Vector

log = logging.getLogger("edgemeta")

PRIVATE, CLASSES = "private-", "classes-"  # before the number of a round, in the state of a context
Answer = Callable[[Any, Any, Told], Mapping[str, Any]]


def answering(stage: Stage) -> Callable[[Answer], Callable[[Any, Any], Any]]:
    """Make what answers a message of a stage with records one of a ClientApp's functions."""

    def made(answer: Answer) -> Callable[[Any, Any], Any]:
        @wraps(answer)
        def handle(message: Any, context: Any) -> Any:
            from flwr.app import ConfigRecord, Message, RecordDict

            strategy = False
            try:
                told = read_told(message.content, stage)
                strategy = told.strategy
                records = answer(message, context, told)
            except EdgemetaError as error:
                if strategy:
                    raise
                log.error("%s", error)
                diverged = isinstance(error, DivergedError)
                records = {"refused": ConfigRecord({"said": str(error), "diverged": diverged})}
            return Message(RecordDict(dict(records)), reply_to=message)

        return handle

    return made


@answering(Stage.TRAIN)
def look(_message: Any, context: Any, told: Told) -> Mapping[str, Any]:
    """Say which participant this is, and whether its data is its own: only labels are read. Raises DataError."""
    from flwr.app import ConfigRecord

    if (site := site_of(context)) is None:
        data_of(context, told)
    else:
        check_site(site, told)
    return {"node": ConfigRecord({"participant": number_of(context), "own": "data" in context.node_config})}


@answering(Stage.TRAIN)
def train(message: Any, context: Any, told: Told) -> Mapping[str, Any]:
    """Do a round's local steps; raises DivergedError, and DataError."""
    from flwr.app import MetricRecord

    work, shared = told.work(number_of(context)), vectors_of(message.content, told)
    if told.strategy and [*shared] != ["theta"]:
        raise ConfigError(f"a strategy of Flower's averages one vector, and {work.recipe.algorithm} sends {[*shared]}")
    counted = max(rounds_of(context.state), default=0) if told.strategy else work.counted
    if site := site_of(context):
        update = trained(site, told, work, shared)
    else:
        data = data_of(context, told)
        classes = data.train_set.classes
        private = private_of(context.state, counted, classes)
        update = client_update(told.run.network, work.recipe, shared, private, data.train, work.draw, len(classes))
        keep_private(context.state, work.round, counted, update.private, classes)
    metrics = MetricRecord({"num-examples": update.samples, "train-loss": update.loss})
    if told.strategy:  # it takes parameters, and averages those
        return {"arrays": to_arrays({"theta": shared["theta"] + update.shared["theta"]}), "metrics": metrics}
    return {**update_records(update, work), "metrics": metrics}


@answering(Stage.EVALUATE)
def evaluate(message: Any, context: Any, told: Told) -> Mapping[str, Any]:
    """Score a model before and after its adaptation; raises DataError."""
    work, vectors = told.work(number_of(context)), vectors_of(message.content, told)
    if site := site_of(context):
        return score_records(evaluated(site, told, work, vectors))
    data = data_of(context, told)
    beside = {name: vector for name, vector in vectors.items() if name != "theta"}
    if keeps_head(work.recipe.algorithm):
        beside |= private_of(context.state, work.counted, data.train_set.classes)
    scores = scored(
        *(told.run.network, vectors["theta"], data.train, data.test),
        *(work.evaluation, work.recipe.batch_size, work.evaluation_rng(), beside),
    )
    return score_records(scores)


def number_of(context: Any) -> int:
    """Return which participant a node is; raises ConfigError when it was not told."""
    number = context.node_config.get("partition-id")
    if type(number) is not int or number < 0:
        raise ConfigError(
            f"this node's partition-id is {number!r}: start each with its own number, counted from 0, as "
            "--node-config 'partition-id=0'"
        )
    return number


def site_of(context: Any) -> Path | None:
    """Return the site that a node stands for, or None where it has data itself."""
    site = context.node_config.get("site")
    return None if site is None else Path(str(site))


def data_of(context: Any, told: Told) -> Participant:
    """Return a node's data: its own, or its part of the experiment's. Only labels are read. Raises DataError."""
    number, given, run = number_of(context), context.node_config.get("data"), told.run
    source = told.source if given is None else str(given)
    shape = run.network.input_shape
    return own_part(source, shape, run.classes, run.data, run.seed, number, cut=given is None)


def rounds_of(state: Any) -> list[int]:
    """Return which rounds have left something in a state."""
    return [int(key.removeprefix(PRIVATE)) for key in state if key.startswith(PRIVATE)]


def private_of(state: Any, counted: int, classes: Sequence[str]) -> dict[str, Vector]:
    """Return what the round `counted` has left in a state, or nothing; a head as one of the classes that there are."""
    kept = state.get(f"{PRIVATE}{counted:06d}")
    private = to_tensors(kept) if kept else {}
    if OWN_HEAD in private:
        had = OwnHead(private[OWN_HEAD], tuple(state[f"{CLASSES}{counted:06d}"]["names"]))
        private[OWN_HEAD] = had.of(classes)
    return private


def keep_private(
    state: Any, round_number: int, counted: int, private: Mapping[str, Vector], classes: Sequence[str]
) -> None:
    """Keep what a round has left in a state, beside what counts until then; a head's classes with it."""
    from flwr.app import ConfigRecord

    if private:
        state[f"{PRIVATE}{round_number:06d}"] = to_arrays(private)
        state[f"{CLASSES}{round_number:06d}"] = ConfigRecord({"names": list(classes)})
        for number in outlived(rounds_of(state), round_number, counted):
            del state[f"{PRIVATE}{number:06d}"], state[f"{CLASSES}{number:06d}"]
