"""What the stage at work has collected: on disk first, and what is needed of it here."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgemeta.errors import ModelFileError, StorageError
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered, admit_evaluation, admit_update
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Refused
from edgemeta.nn import Model
from edgemeta.reading import read_file
from edgemeta.storage import set_aside, write_atomic

log = logging.getLogger("edgemeta")


class Collected:
    """plan: of the run, as it is now. updates, scores: by participant.

    Methods raise Refused for what does not count, and StorageError.
    """

    def __init__(self, directory: RunDirectory, plan: Plan, model: Model) -> None:
        self._directory, self.plan, self._model = directory, plan, model
        self.updates: dict[int, Delivered] = {}
        self.scores: dict[int, dict[str, Any]] = {}

    def of(self, stage: Stage) -> Mapping[int, Any]:
        """Return what a stage collects."""
        return self.updates if stage is Stage.TRAIN else self.scores

    def add_update(self, participant: int, round_number: int, file: Path, sizes: Mapping[str, int]) -> None:
        """Keep an update that lies complete in `file`, which is moved away."""
        delivered = self._admit(file, round_number, sizes)
        self._directory.keep_update(file, round_number, participant)
        self.updates[participant] = delivered

    def add_scores(self, participant: int, round_number: int, body: bytes) -> None:
        """Keep a participant's scores of a round's model."""
        scores = self._admit_scores(body)
        if self._directory.durable:
            write_atomic(self._directory.evaluation_path(round_number, participant), [body], private=True)
        self.scores[participant] = scores | {"bytes": len(body)}

    def set_aside(self, round_number: int, participants: Collection[int]) -> None:
        """Let go of updates that cannot count, which stay on disk under another name until the round is over."""
        for k in participants:
            self._directory.set_aside(round_number, k)
            del self.updates[k]

    def recover(self, progress: Progress, sizes: Mapping[str, int]) -> None:
        """Find again what the open stage has on disk; what a card has lost of it is set aside, and said."""
        if progress.stage is Stage.OVER:
            return
        updates: dict[int, Delivered] = {}
        scores: dict[int, dict[str, Any]] = {}
        kind = "update" if progress.stage is Stage.TRAIN else "evaluation"
        for k, path in self._directory.collected(progress.round, kind).items():
            try:
                if progress.stage is Stage.TRAIN:
                    updates[k] = self._admit(path, progress.round, sizes)
                else:
                    body = read_file(path) or b""
                    scores[k] = self._admit_scores(body) | {"bytes": len(body)}
            except Refused as error:  # a card that lost what it had said to have written: the device is asked again
                log.warning("%s is damaged, and is kept as %s: %s", path, set_aside(path).name, error)
        self.updates, self.scores = updates, scores  # all of it or, when something cannot be read, what was known

    def look_again(self, progress: Progress, sizes: Mapping[str, int], error: ModelFileError) -> None:
        """Set aside what was damaged after it had been accepted, so that its device is asked again.

        error: what folding met; it is raised as a StorageError when nothing is found that explains it.
        """
        accepted = set(self.updates)
        self.recover(progress, sizes)
        if accepted <= set(self.updates):
            raise StorageError(f"round {progress.round} cannot be closed: {error}") from error

    def _admit_scores(self, body: bytes) -> dict[str, Any]:
        return admit_evaluation(body, self.plan.config.evaluation, classifies=self._model.classifies)

    def _admit(self, file: Path, round_number: int, sizes: Mapping[str, int]) -> Delivered:
        recipe = self.plan.recipe(round_number)
        return admit_update(file, round_number, self._model.layout, sizes, recipe.upload)
