"""A device's own work: the task that the gateway gave, done in steps that go on after a power cut."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgemeta.data.folder import read_all
from edgemeta.device.done import Done, Kind
from edgemeta.device.guard import Guard
from edgemeta.device.joined import Joined
from edgemeta.device.own import LEARNED, Source, own_part, root_of, with_learned
from edgemeta.device.personal import own_head
from edgemeta.device.state import DeviceState
from edgemeta.errors import DataError, ModelFileError, StorageError
from edgemeta.fed.client import finish, local_steps
from edgemeta.fed.description import Description
from edgemeta.fed.messages import Work, encode_evaluation, encode_update, read_work
from edgemeta.fed.participants import Participant
from edgemeta.fed.private import load_private, private_path, save_private
from edgemeta.fed.progress import Stage
from edgemeta.meta import LocalState, begin, evaluate, steps_in
from edgemeta.meta.learners import keeps_head, trained
from edgemeta.meta.personal_heads import OWN_HEAD
from edgemeta.nn import Model, Vector
from edgemeta.reading import exists, names
from edgemeta.storage import set_aside, write_atomic

log = logging.getLogger("edgemeta")

SAVE_EVERY_S = 30.0  # local steps that a power cut may cost, against wear of the card: a state is the model's size


class Task(NamedTuple):
    """A task, and the vectors that came with it."""

    work: Work
    vectors: dict[str, Vector]


class Tasks:
    """The task in a state directory, and what a device makes of it. Raises StorageError, DataError, DivergedError."""

    def __init__(
        self,
        state: DeviceState,
        source: Source | None,
        partition_id: int | None,
        guard: Guard,
        clock: Callable[[], float],
    ) -> None:
        self._state, self._source, self._partition_id, self._clock = state, source, partition_id, clock
        self._guard, self._ends_at = guard, math.inf
        # A process that ends after each call of `step` must get on; one that calls it in a loop may write less often.
        self._saved, self._save_at = False, 0.0
        self.training = False  # is a local step at work now, which would be lost if it were cut off?
        self._updated: int | None = None  # the round of the last update that this process has delivered
        self._task: Task | None = None
        self._local: LocalState | None = None
        self._rows: tuple[str, ...] = ()  # the classes of a head among its vectors that is this device's own
        self._part: Participant | None = None
        self._loaded: Participant | None = None

    @property
    def source(self) -> Source | None:
        """Where this device's data is; raises DataError where it is a part of what others have, too."""
        if self._partition_id is not None:
            raise DataError("this device takes a part of a data set that is cut: give it data of its own")
        return self._source

    def current(self, run: Joined) -> Task | None:
        """Return the task to do; one that is damaged is set aside, and one of another run is dropped."""
        if self._task is None and exists(self._state.work):
            try:
                work, vectors = read_work(self._state.work, run.network)
            except ModelFileError as error:
                log.warning("%s: it is kept as %s", error, set_aside(self._state.work).name)
                self.drop()
                return None
            if (work.participant, work.seed) != (run.participant, run.run.seed):
                log.warning("a task for participant %d of another run is dropped", work.participant)
                self.drop()
            elif not all(np.isfinite(vector).all() for vector in vectors.values()):
                log.warning("a task is dropped, as its parameters are not all finite")
                self.drop()
            else:
                self._task = Task(work, vectors)
        return self._task

    def data(self, run: Joined) -> Participant:
        """Return this device's data; what was read of it is kept until `release`."""
        if self._loaded is None:
            if self._partition_id is None:
                self._loaded = self._own(run.run, run.participant, cut=False)
            else:  # what a part of a data set is does not change: its labels are kept, its samples are not
                self._part = self._part or self._own(run.run, self._partition_id, cut=True)
                self._loaded = replace(self._part)
        return self._loaded

    def check(self, run: Description) -> None:
        """Raise NoMemory when not even a step on one sample of a run's network fits, DataError when the data does not.

        Only labels are read, and nothing of the network's size is made.
        """
        self._guard.check(run.network, 1, 1)
        part = self._partition_id
        if part is None:
            self._own(run, 0, cut=False)
        elif part < run.data.participants:  # else the gateway says why there is no such part
            self._part = self._own(run, part, cut=True)

    @property
    def grows(self) -> bool:
        """Whether the data is of a kind that may grow."""
        return callable(self._source) or (isinstance(self._source, str | Path) and Path(self._source).is_dir())

    def ends_in(self, seconds: float | None) -> None:
        """Take note of how long the gateway waits for the task that has come; None: it does not say."""
        self._ends_at = math.inf if seconds is None else self._clock() + seconds

    def release(self) -> None:
        """Let go of the samples that were read."""
        self._loaded = None

    def train(self, run: Joined, budget_s: float) -> Done:
        """Take local steps until the budget is used; after the last one, leave the update in the state directory."""
        assert self._task is not None
        (work, vectors), state, part = self._task, self._state, self.data(run)
        data, classes = part.train, part.train_set.classes
        network = trained(run.network, work.recipe.algorithm, len(classes))
        if self._local is None:
            self._guard.check(run.network, work.recipe.batch_size, data.size)
        local, began = self._local_state(network, work, vectors, classes), self._clock()
        total, whole = steps_in(work.recipe, data.size), False
        first, first_at = local.step + 1, began  # the first step here has the samples to read too: it is not typical
        self.training = True
        try:
            for _ in local_steps(network, work.recipe, local, data, work.draw):
                whole = True
                now = self._clock()
                used = now - began >= budget_s
                if local.step == first:
                    first_at = now
                else:
                    self._warn_of_deadline(work, total, local.step, (now - first_at) / (local.step - first), now)
                if local.step < total and (now >= self._save_at or (used and not self._saved)):
                    self._save_local(work, local)
                if local.step < total and used:
                    return Done(Kind.TRAINED, f"trained {local.step} of {total} steps of round {work.round}")
                whole = False
            network.release()  # a device waits for longer than it works
        except BaseException:
            network.release()
            if not whole:  # a step was cut off half way, by Ctrl-C say: go on from what is on disk
                self._local = None
            raise
        finally:
            self.training = False
        update = finish(work.recipe, vectors, local, data.size)
        save_private(state.path, work.round, work.counted, update.private, classes)
        write_atomic(state.update, encode_update(update, work.round, work.layout, work.recipe.upload), private=True)
        self._local = None
        if self._partition_id is None:
            self.release()  # a folder is looked at again for the next task, as it may have grown
        return Done(Kind.TRAINED, f"trained {total} of {total} steps of round {work.round} (loss {update.loss:.3g})")

    def _warn_of_deadline(self, work: Work, total: int, done: int, step_s: float, now: float) -> None:
        """Say once, while there is time to do something about it, that a round's steps take longer than it is open."""
        if now + (total - done) * step_s > self._ends_at:
            left_s, self._ends_at = self._ends_at - now, math.inf
            log.warning(
                "round %d: the %d steps that are left take %.3g s here (%.3g s each), and it is open for %.3g s more: "
                "this update will come too late; give the run fewer local steps, a smaller model or batch_size, "
                "or a longer server.round_deadline_s",
                *(work.round, total - done, (total - done) * step_s, step_s, max(left_s, 0.0)),
            )

    def evaluate(self, run: Joined) -> Done:
        """Score the task's model, and leave the scores in the state directory."""
        assert self._task is not None
        (work, vectors), data = self._task, self.data(run)
        self._guard.check(run.network, work.recipe.batch_size, data.train.size + data.test.size)
        beside = {name: vector for name, vector in vectors.items() if name != "theta"}
        if head := own_head(self._state, work):
            beside[OWN_HEAD] = head.of(data.train_set.classes)
        try:
            scores = evaluate(
                *(run.network, vectors["theta"], data.train, data.test),
                *(work.evaluation, work.recipe.batch_size, work.evaluation_rng()),
                beside,
            )
        finally:
            run.network.release()
        write_atomic(self._state.scores, [encode_evaluation(scores)], private=True)
        shown = "accuracy" if "accuracy" in scores["after"] else "loss"
        before = f"{shown} {scores['before'][shown]:.3f}, adapted" if scores["before"] else f"adapted, {shown}"
        return Done(Kind.EVALUATED, f"round {work.round}: {before} {scores['after'][shown]:.3f}")

    def done(self, every: int, last_round: int | None) -> bool:
        """Put the task aside, as its result is delivered; return whether its round asks for nothing more.

        every: so many rounds an update is followed by an evaluation; an evaluation that follows no update of this
        process ends no round.
        """
        assert self._task is not None
        work = self._task.work
        train, number = work.kind is Stage.TRAIN, work.round
        ends = not (number % every == 0 or number == last_round) if train else number == self._updated
        self._updated = number if train else self._updated
        self._task = self._local = None
        self._state.task_done()
        return ends

    def drop(self) -> None:
        """Forget the task and what was done of it."""
        self._task = self._local = None
        self._state.forget_task()

    def forget_run(self) -> None:
        """Forget all that belongs to a run which is not this device's any more."""
        self._task = self._local = self._part = self._loaded = None
        self._state.forget_run()

    def close(self) -> None:
        """Keep the local steps done so far."""
        try:
            if self._task and self._local and self._local.step:
                self._save_local(self._task.work, self._local)
        except StorageError as error:
            log.warning("the last local steps are lost: %s", error)
        self._task = self._local = self._loaded = None

    def _own(self, of: Description, number: int, *, cut: bool) -> Participant:
        shape = of.network.input_shape
        learned, source = self._state.path / LEARNED, self._source
        if source is None and exists(learned):
            source = learned
        part = own_part(source, shape, of.classes, of.data, of.seed, number, cut=cut)
        beside = source is not None and root_of(source) is None and not of.classes and exists(learned)
        if not beside or cut or not names(learned):
            return part
        return with_learned(part, *read_all(learned, (shape[0], shape[1], shape[2]))[:2])

    def _local_state(
        self, network: Model, work: Work, vectors: dict[str, Vector], classes: tuple[str, ...]
    ) -> LocalState:
        """Return where the local steps are; where an own head has other classes by now, they begin anew."""
        rows = classes if keeps_head(work.recipe.algorithm) else ()
        if self._local is None or self._rows != rows:
            try:
                private = load_private(self._state.path, work.counted, classes)
            except ModelFileError as error:
                aside = set_aside(private_path(self._state.path, work.counted))
                log.warning("%s: what this device kept to itself begins anew, and this is in %s", error, aside.name)
                private = {}
            self._rows = rows
            self._local = self._state.load_local(work, rows) or begin(network, work.recipe, vectors, private)
            self._save_at = self._clock() + SAVE_EVERY_S
        return self._local

    def _save_local(self, work: Work, local: LocalState) -> None:
        self._state.save_local(work, local, self._rows)
        self._saved, self._save_at = True, self._clock() + SAVE_EVERY_S
