"""The round's state machine: messages and the time go in, replies come out.

It never sleeps, never opens a connection and never runs a model. A simulation drives it by function calls, a gateway
by HTTP; so there is one copy of the rules. Everything that it has accepted is on disk before it answers, and opening
the same directory again goes on from there. Each round has two stages: "train" (updates are collected and folded into
the next model) and, on evaluated rounds, "evaluate" (all participants score that model). `now` is in seconds, of a
clock that only goes forward.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.errors import DivergedError
from edgemeta.fed.aggregate import AGGREGATORS, OPTIMIZERS
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered, Refused, Work, admit_evaluation, admit_update
from edgemeta.fed.plan import Plan
from edgemeta.fed.scores import combine
from edgemeta.fed.streams import Stream, generator
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import load_parameters, read_tensors, save_model

log = logging.getLogger("edgemeta")


@dataclass
class Progress:
    """What is committed to disk. model: the round that led to the current model; cohort: who is asked in this stage.

    counted: participant -> the last round in which its update counted. record: of the round at work.
    """

    round: int = 0
    stage: str = "evaluate"
    model: int = 0
    attempt: int = 0
    cohort: list[int] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


class Coordinator:
    """One run. Raises, from its methods, Refused for messages that do not count, and StorageError."""

    def __init__(self, plan: Plan, model: Model, theta: Vector, directory: RunDirectory, roster: Sequence[str], now: float) -> None:
        self.plan, self.model, self.directory = plan, model, directory
        self.roster = list(roster)
        self.opened = now
        progress = directory.load_progress()
        if progress is None:
            self.progress = Progress()
            self._save_model(theta)
            directory.commit(asdict(self.progress))
        else:
            self.progress = Progress(**progress)
        self._updates: dict[int, Delivered] = {}
        self._scores: dict[int, dict[str, Any]] = {}
        self._recover()

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return self.progress.stage == "over"

    def work(self, participant: int, now: float) -> Work | None:
        """Return the participant's task, or None when there is nothing for it to do now."""
        self._open(now)
        progress = self.progress
        if self.finished or participant not in progress.cohort or participant in self._delivered:
            return None
        return Work(
            kind=progress.stage,
            round=progress.round,
            phase=self.plan.phase_of(progress.round),
            participant=participant,
            seed=self.plan.config.seed,
            recipe=self.plan.recipe(progress.round),
            evaluation=self.plan.config.evaluation,
            layout=self.model.layout.fingerprint,
            counted=progress.counted.get(str(participant), 0),
        )

    def deliver(self, participant: int, round_number: int, file: Path, now: float) -> None:
        """Accept an update that lies complete in `file`, which is moved away; a repeated one changes nothing."""
        if self._is_new("train", participant, round_number):
            delivered = admit_update(file, round_number, self.model.layout)
            kept = self.directory.update_path(round_number, participant)
            os.replace(file, kept)
            self._updates[participant] = Delivered(**{**vars(delivered), "path": kept})
            self._close_if_complete(now)

    def deliver_evaluation(self, participant: int, round_number: int, body: bytes, now: float) -> None:
        """Accept a participant's scores of the current model; repeated ones change nothing."""
        if self._is_new("evaluate", participant, round_number):
            scores = admit_evaluation(body)
            kept = self.directory.evaluation_path(round_number, participant)
            kept.write_bytes(body)
            self._scores[participant] = scores | {"bytes": len(body)}
            self._close_if_complete(now)
