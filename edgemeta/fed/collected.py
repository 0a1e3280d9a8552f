"""What the stage at work has collected: on disk first, and what is needed of it here."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemeta.errors import ModelFileError, StorageError
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered, admit_evaluation, admit_update
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Refused
from edgemeta.meta.learners import keeps_head
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
        self.classes: dict[int, int] = {}  # how many of its own a participant has said to have, where each has its own
        self.shares: dict[int, dict[str, float | None]] = {}  # right answers of a participant when last scored

    def of(self, stage: Stage) -> Mapping[int, Any]:
        """Return what a stage collects."""
        return self.updates if stage is Stage.TRAIN else self.scores

    def add_update(self, participant: int, task: int, file: Path, sizes: Mapping[str, int], into: int) -> None:
        """Keep an update of a round's task that lies complete in `file`, which is moved away: it counts in `into`."""
        delivered = self._admit(file, range(task, task + 1), sizes, into)
        self._directory.keep_update(file, into, participant)
        self.updates[participant] = delivered

    def add_scores(self, participant: int, round_number: int, body: bytes) -> None:
        """Keep a participant's scores of a round's model."""
        scores = self._admit_scores(body, round_number)
        if self._directory.durable:
            write_atomic(self._directory.evaluation_path(round_number, participant), [body], private=True)
        self.scores[participant] = self._kept(participant, body, scores)

    def set_aside(self, round_number: int, participants: Collection[int]) -> None:
        """Let go of updates that cannot count, which stay on disk under another name until the round is over."""
        for k in participants:
            self._directory.set_aside(round_number, k)
            del self.updates[k]

    def recover(self, progress: Progress, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Find again what the open stage has on disk; what a card has lost of it is set aside, and said.

        sizes: returns those of an update; asked for only where there may be one.
        """
        updates: dict[int, Delivered] = {}
        scores: dict[int, dict[str, Any]] = {}
        if progress.stage is Stage.TRAIN:
            updates = self._updates_on_disk(progress.round, sizes())
        elif progress.stage is Stage.EVALUATE:
            for k, path in self._directory.collected(progress.round, "evaluation").items():
                with _damaged_set_aside(path):
                    body = read_file(path) or b""
                    scores[k] = self._kept(k, body, self._admit_scores(body, progress.round))
            if progress.wakes:  # what boards that sleep have sent meanwhile counts in the next round
                updates = self._updates_on_disk(progress.round + 1, sizes())
        self.updates, self.scores = updates, scores  # all of it or, when something cannot be read, what was known

    def _updates_on_disk(self, round_number: int, sizes: Mapping[str, int]) -> dict[int, Delivered]:
        """Return the updates that count in a round."""
        updates = {}
        tasks = range(max(1, round_number - self.plan.server.max_lag), round_number + 1)
        for k, path in self._directory.collected(round_number, "update").items():
            with _damaged_set_aside(path):
                updates[k] = self._admit(path, tasks, sizes, round_number)
        return updates

    def look_again(self, progress: Progress, sizes: Callable[[], Mapping[str, int]], error: ModelFileError) -> None:
        """Set aside what was damaged after it had been accepted, so that its device is asked again.

        error: what folding met; it is raised as a StorageError when nothing is found that explains it.
        """
        accepted = set(self.updates)
        self.recover(progress, sizes)
        if accepted <= set(self.updates):
            raise StorageError(f"round {progress.round} cannot be closed: {error}") from error

    def _admit_scores(self, body: bytes, round_number: int) -> dict[str, Any]:
        own, heads = self._model.embeds, keeps_head(self.plan.recipe(round_number).algorithm)
        classifies = own or self._model.classifies
        return admit_evaluation(body, self.plan.config.evaluation, classifies=classifies, own=own, heads=heads)

    def _kept(self, participant: int, body: bytes, scores: dict[str, Any]) -> dict[str, Any]:
        if "classes" in scores:
            self.classes[participant] = scores["classes"]
        if "accuracy" in scores["after"]:
            self.shares[participant] = {when: (scores[when] or {}).get("accuracy") for when in ("before", "after")}
        return scores | {"bytes": len(body)}

    def _admit(self, file: Path, tasks: range, sizes: Mapping[str, int], into: int) -> Delivered:
        return admit_update(file, tasks, self._model.layout, sizes, self.plan.recipe(into).upload)


@contextmanager
def _damaged_set_aside(path: Path) -> Iterator[None]:
    """Keep a file that does not count any more under another name: its device is asked again."""
    try:
        yield
    except Refused as error:  # a card that lost what it had said to have written
        log.warning("%s is damaged, and is kept as %s: %s", path, set_aside(path).name, error)
