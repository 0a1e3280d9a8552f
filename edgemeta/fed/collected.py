"""What the stage at work has collected: on disk first, and what is needed of it here."""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered, admit_evaluation, admit_update
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Refused
from edgemeta.nn import Model
from edgemeta.storage import storing, sync_folder, write_atomic

log = logging.getLogger("edgemeta")


class Collected:
    """updates, scores: by participant. Methods raise Refused for what does not count, and StorageError."""

    def __init__(self, directory: RunDirectory, plan: Plan, model: Model) -> None:
        self._directory, self._plan, self._model = directory, plan, model
        self.updates: dict[int, Delivered] = {}
        self.scores: dict[int, dict[str, Any]] = {}
        self.classes: dict[int, int] = {}  # how many of its own a participant has said to have, where each has its own

    def of(self, stage: Stage) -> Mapping[int, Any]:
        """Return what a stage collects."""
        return self.updates if stage is Stage.TRAIN else self.scores

    def add_update(self, participant: int, round_number: int, file: Path, sizes: Mapping[str, int]) -> None:
        """Keep an update that lies complete in `file`, which is moved away."""
        delivered = self._admit(file, round_number, sizes)
        kept = self._directory.update_path(round_number, participant)
        with storing(kept):
            os.replace(file, kept)
            if self._directory.durable:
                sync_folder(kept.parent)
        self.updates[participant] = delivered

    def add_scores(self, participant: int, round_number: int, body: bytes) -> None:
        """Keep a participant's scores of a round's model."""
        scores = self._admit_scores(body)
        if self._directory.durable:
            write_atomic(self._directory.evaluation_path(round_number, participant), [body])
        self._keep_scores(participant, body, scores)

    def set_aside(self, round_number: int, participants: Collection[int]) -> None:
        """Let go of updates that cannot count, which stay on disk under another name until the round is over."""
        for k in participants:
            del self.updates[k]
            self._directory.set_aside(round_number, k)

    def recover(self, progress: Progress, sizes: Mapping[str, int]) -> None:
        """Find again what an interrupted stage had already collected."""
        kind = {Stage.TRAIN: "update", Stage.EVALUATE: "evaluation", Stage.OVER: ""}[progress.stage]
        for k, path in self._directory.collected(progress.round, kind).items():
            try:
                if progress.stage is Stage.TRAIN:
                    self.updates[k] = self._admit(path, progress.round, sizes)
                else:
                    body = path.read_bytes()
                    self._keep_scores(k, body, self._admit_scores(body))
            except Refused as error:  # a card that lost what it had said to have written: the device is asked again
                log.warning("%s is damaged, and is dropped: %s", path, error)
                path.unlink()

    def _admit_scores(self, body: bytes) -> dict[str, Any]:
        own = self._model.embeds
        return admit_evaluation(body, self._plan.config.evaluation, classifies=own or self._model.classifies, own=own)

    def _keep_scores(self, participant: int, body: bytes, scores: dict[str, Any]) -> None:
        self.scores[participant] = scores | {"bytes": len(body)}
        if "classes" in scores:
            self.classes[participant] = scores["classes"]

    def _admit(self, file: Path, round_number: int, sizes: Mapping[str, int]) -> Delivered:
        recipe = self._plan.recipe(round_number)
        return admit_update(file, round_number, self._model.layout, sizes, recipe.upload)
