"""A site as one participant of a federation above it: a coordinator whose models come from there.

What is asked from above lies in the run directory (order.safetensors): a round, a stage and the vectors to begin with.
The stage opens with them, and is answered (answer.safetensors) with the weighted mean of what the site's participants
sent and the sum of their samples, or with why there is none. An order stays until another one comes, so a kill loses
nothing; that may be about any round, as a site may miss some.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta import disk
from edgemeta.config import RunConfig
from edgemeta.errors import ConfigError
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.messages import Work
from edgemeta.fed.progress import Stage
from edgemeta.fed.server_step import ServerState, keep, load_state, travelling
from edgemeta.meta.learners import LEARNERS, keeps_head
from edgemeta.nn import Vector
from edgemeta.nn.files import encode_tensors, load_parameters, read_tensors
from edgemeta.reading import exists
from edgemeta.storage import storing, write_atomic

log = logging.getLogger("edgemeta")

ORDER, ANSWER = "order.safetensors", "answer.safetensors"


@dataclass(frozen=True)
class Order:
    """What is asked from above. key: of this question; counted: the last round in which this site's answer counted."""

    key: str
    stage: Stage
    round: int
    counted: int


def check_between(config: RunConfig) -> None:
    """Raise ConfigError where a site cannot answer with a mean that is worth what its participants' updates are."""
    if (optimizer := config.server.optimizer) != "sgd" or config.server.optimizer_settings:
        raise ConfigError(
            f"server.optimizer is '{optimizer}', and a site answers with its mean: leave it to the ServerApp, and have "
            "'sgd' here"
        )
    for phase in config.phases:
        if keeps_head(phase.algorithm):
            raise ConfigError(
                f"algorithm '{phase.algorithm}' has no whole model travel, which a site takes up: take another, or "
                "make each board a node"
            )
        if LEARNERS[phase.algorithm].of_all:
            raise ConfigError(
                f"algorithm '{phase.algorithm}' keeps a mean over all participants, and a site knows only its own: "
                "take another, or make each board a node"
            )


def place_order(run: Path, key: str, work: Work, vectors: Mapping[str, Vector]) -> None:
    """Ask the site whose run is in a directory for a task's stage. Raises StorageError."""
    said = {"key": key, "stage": str(work.kind), "round": str(work.round), "counted": str(work.counted)}
    write_atomic(run / ORDER, encode_tensors(vectors, said), private=True)


def answer_to(run: Path, key: str) -> tuple[dict[str, Vector], Mapping[str, str]] | None:
    """Return the vectors and the metadata that a site has answered with, or None when it has not yet."""
    if not exists(run / ANSWER):
        return None
    tensors, said = read_tensors(run / ANSWER)
    return (tensors, said) if said.get("key") == key else None


class Between(Coordinator):
    """A site's run: its stages open when they are ordered. With whatever it is told, it looks for an order."""

    opens = "the federation above has not asked for it yet"
    _order: Order | None = None  # at work, and not answered yet
    _since = 0.0  # when it was taken up
    _seen: tuple[int, int] | None = None  # the file of the order that was looked at last

    def tick(self, now: float) -> None:
        """Act on deadlines, and say where nothing comes of what is ordered."""
        attempt = self.progress.attempt
        super().tick(now)
        if self._order is None:
            return
        missing = ", ".join(map(self._name, sorted(self.members.away))) or "nobody known"
        if self.progress.attempt > attempt:
            self._refuse(f"too few of this site's boards have delivered in time (away: {missing})")
        elif not self.progress.cohort and now - self._since > self.plan.server.round_deadline_s:
            self._refuse(f"{len(self.joined)} of {self.quorum} boards of this site have joined (away: {missing})")

    def _draw(self) -> list[int]:
        return super()._draw() if self._order else []

    def _go_on(self, now: float) -> None:
        self._take_order(now)
        super()._go_on(now)

    def _take_order(self, now: float) -> None:
        path = self.directory.path / ORDER
        there = disk.look(path)
        if there is None or self._seen == (seen := (there.st_ino, there.st_mtime_ns)):
            return
        self._seen = seen
        vectors, said = read_tensors(path)
        if answer_to(self.directory.path, said["key"]):  # before this process began
            return
        order = Order(said["key"], Stage(said["stage"]), int(said["round"]), int(said["counted"]))
        self._order, self._since = order, now
        if self.finished:
            self._refuse("the run is over at this site: 'edgemeta run new' begins another one")
        elif not self._is_at(order, vectors["theta"]):
            self._go_to(order, vectors)

    def _is_at(self, order: Order, theta: Vector) -> bool:
        """Say whether an order is at work already, as it was before a restart."""
        progress, model = self.progress, _model_of(order)
        where = (progress.stage, progress.round, progress.model)
        return where == (order.stage, order.round, model) and np.array_equal(self._vectors()["theta"], theta)

    def _go_to(self, order: Order, vectors: Mapping[str, Vector]) -> None:
        """Make an order's model the current one, and its stage the open one: what was collected is of another."""
        progress, model = self.progress, _model_of(order)
        self._collected.updates.clear()
        self._collected.scores.clear()
        for kind in ("update", "evaluation"):
            for file in self.directory.collected(order.round, kind).values():
                with storing(file):
                    disk.remove(file)
        beside = {name: vector for name, vector in vectors.items() if name != "theta"}
        shared = {**load_state(self.directory.round_state(model)).shared, **beside}
        keep(self.directory, self.plan, self.model, model, vectors["theta"], ServerState(shared))
        self._server = (-1, ServerState())  # another state has come under the same round
        before = progress.before.counted if progress.before else {}
        counted = {
            k: number if number <= order.counted else before[k]
            for k, number in progress.counted.items()
            if min(number, before.get(k, number)) <= order.counted
        }
        record = progress.record if progress.round == order.round else {**self.plan.new_record(order.round)}
        self._commit(
            **{"round": order.round, "stage": order.stage, "model": model, "record": record, "counted": counted},
            **{"cohort": [], "attempt": 0, "before": None, "without": []},
        )

    def _vectors(self) -> dict[str, Vector]:
        """Return the vectors of the current model, by name."""
        recipe = self.plan.recipe(max(self.progress.model, 1))
        return {"theta": load_parameters(self.model_path).theta, **travelling(load_state(self.state_path), recipe)}

    def _repeat_last(self) -> None:
        if self._order is not None:  # which round is repeated is not for a site to say
            self._refuse("the model diverges on most of this site's boards")

    def _close_training(self, now: float) -> None:
        number, updates = self.progress.round, dict(self._collected.updates)
        before = {"theta": self._vectors()["theta"], **self.beside}
        super()._close_training(now)
        if self.progress.model != number or self._order is None:
            return
        after = self._vectors()
        counting = [one for k, one in updates.items() if self.progress.counted.get(str(k)) == one.round]
        samples = sum(one.samples for one in counting)
        said = {
            "samples": str(samples),
            "loss": repr(sum(one.loss * one.samples for one in counting) / samples),
            "gradient_evaluations": str(sum(one.gradient_evaluations for one in counting)),
        }
        self._answer({name: after[name] - vector for name, vector in before.items()}, said)

    def _close_evaluation(self, now: float) -> None:
        scores = [self._collected.scores[k] for k in sorted(self._collected.scores)]
        super()._close_evaluation(now)
        if self._order is not None and scores:
            self._answer({}, {"scores": json.dumps(together(scores))})

    def _refuse(self, why: str) -> None:
        log.warning("round %d: %s", self.progress.round, why)
        self._answer({}, {"refused": why})
        if self.progress.cohort:
            self._commit(cohort=[])  # nobody is to work for it any more

    def _answer(self, vectors: Mapping[str, Vector], said: Mapping[str, str]) -> None:
        """Answer what was ordered: nothing opens until there is another order."""
        assert self._order is not None
        parts = encode_tensors(vectors, {"key": self._order.key, **said})
        write_atomic(self.directory.path / ANSWER, parts, private=True)
        self._order = None


def together(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the scores of several participants as those of one: means weighted by test samples."""
    weights = [one["samples"] for one in scores]
    keys = [key for key in scores[0] if key not in ("samples", "bytes", "classes")]
    mean: dict[str, Any] = {key: _mean([one[key] for one in scores], weights) for key in keys}
    classes = {"classes": round(_mean([one["classes"] for one in scores], weights))} if "classes" in scores[0] else {}
    return {**mean, **classes, "samples": sum(weights)}


def _mean(values: Sequence[Any], weights: Sequence[int]) -> Any:
    """Return the weighted mean of numbers, or of what has them in the same places; None where nobody has one."""
    there = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    if not there:
        return None
    first, mass = there[0][0], [weight for _, weight in there]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value, _ in there], mass) for key in first}
    if isinstance(first, list):
        return [_mean(list(cell), mass) for cell in zip(*(value for value, _ in there), strict=True)]
    return math.fsum(value * weight for value, weight in there) / sum(mass)


def _model_of(order: Order) -> int:
    """Return the round that led to the model which an order brings."""
    return order.round - (order.stage is Stage.TRAIN)
