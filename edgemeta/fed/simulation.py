"""A whole run in one process: the coordinator and every participant, by function calls instead of a network."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemeta.config import RunConfig
from edgemeta.data.fingerprint import Fingerprint
from edgemeta.data.leftout import LeftOut
from edgemeta.disk import remove
from edgemeta.errors import DivergedError
from edgemeta.fed.client import client_update
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory, write_parts
from edgemeta.fed.messages import Work, encode_evaluation, encode_update
from edgemeta.fed.participants import Participant
from edgemeta.fed.plan import Plan
from edgemeta.fed.private import load_head, load_private, save_private
from edgemeta.fed.progress import Stage
from edgemeta.fed.scores import Record, Summary
from edgemeta.fed.server_step import load_state, scored_with, travelling
from edgemeta.meta import TrainedModel, evaluate, load_model
from edgemeta.meta.learner import Vectors
from edgemeta.meta.learners import sizes
from edgemeta.meta.personal_heads import OWN_HEAD
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import load_parameters
from edgemeta.reading import read_file
from edgemeta.storage import storing


@dataclass(frozen=True)
class RunResult:
    """What a run leads to.

    history: one record a round; model: the final global model; summary: totals, scores, and what was left out. beside:
    for each participant, the vectors that go beside theta where it scores that: a head, if its learner trained one.
    """

    history: list[Record]
    model: TrainedModel
    summary: Summary
    beside: Sequence[Vectors] = ()


@dataclass(frozen=True)
class Task:
    """One participant's work, small enough to be handed to another process: what is large is in files."""

    work: Work
    theta: Path
    beside: Path
    result: Path
    private: Path


def run(
    config: RunConfig,
    network: Model,
    participants: Sequence[Participant],
    *,
    out: Path | None,
    theta: Vector,
    clock: Callable[[], float],
    on_round: Callable[[Record], None] = lambda _: None,
    on_participant: Callable[[Work, int, int], None] = lambda *_: None,
    each: Callable[[Callable[[Task], Task], Iterable[Task]], Iterator[Task]] = map,
    data: Fingerprint | None = None,
    left_out: LeftOut | None = None,
) -> RunResult:
    """Run, or go on with, a resolved configuration; raises DivergedError when a loss is no longer finite.

    out: the run directory; None for a temporary one. theta: where a new run starts. on_round gets each record,
    on_participant each piece of work that is done (and how many of how many that is). each: how a function is applied
    to the participants' tasks, say a process pool's map; the order of the results does not matter. data: of all
    of it, by which the run directory knows it again. left_out: what of it nobody has.
    """
    place: AbstractContextManager[str] = tempfile.TemporaryDirectory() if out is None else nullcontext(str(out))
    with place as folder:
        facts = {} if left_out is None else {"left_out": left_out.to_json()}
        directory = RunDirectory(Path(folder), config, durable=False, data=data, facts=facts)
        try:
            coordinator = Coordinator(Plan(config), network, theta, directory, range(len(participants)), clock())
            perform_task = partial(perform, network, participants)
            while not coordinator.finished:
                before = coordinator.progress
                tasks = _tasks(coordinator, len(participants), clock)
                for done, task in enumerate(each(perform_task, tasks), 1):
                    on_participant(task.work, done, len(tasks))
                    _deliver(coordinator, task, clock())
                for record in directory.history(after=before.history):
                    if record["round"] >= before.round:
                        on_round(record)
            summary = directory.summary()
            assert summary is not None  # the run is over
            recipe = coordinator.plan.recipe(coordinator.progress.model)
            shared = scored_with(load_state(coordinator.state_path), recipe)
            counted = coordinator.progress.counted
            beside = [
                shared | _head(participant_folder(directory.path, k), counted.get(str(k), 0), recipe.algorithm, one)
                for k, one in enumerate(participants)
            ]
            return RunResult(directory.history(), load_model(directory.model_path), summary, beside)
        finally:
            directory.close()
            network.release()


def perform(network: Model, participants: Sequence[Participant], task: Task) -> Task:
    """Do a task, leave its result in its file, and return it; a device takes the same steps from the same draws.

    Raises DivergedError that says where.
    """
    work, participant = task.work, participants[task.work.participant]
    theta = load_parameters(task.theta).theta
    classes = participant.train_set.classes
    if work.kind is Stage.TRAIN:
        theta = theta[: sizes(network, work.recipe.algorithm)["theta"]]
        shared = {"theta": theta, **travelling(load_state(task.beside), work.recipe)}
        private = load_private(task.private, work.counted, classes)
        try:
            update = client_update(network, work.recipe, shared, private, participant.train, work.draw, len(classes))
        except DivergedError as error:
            raise DivergedError(f"participant {work.participant}, round {work.round}: {error}") from None
        save_private(task.private, work.round, work.counted, update.private, classes)
        write_parts(task.result, encode_update(update, work.round, work.layout, work.recipe.upload))
    else:
        scores = evaluate(
            *(network, theta, participant.train, participant.test),
            *(work.evaluation, work.recipe.batch_size, work.evaluation_rng()),
            scored_with(load_state(task.beside), work.recipe)
            | _head(task.private, work.counted, work.recipe.algorithm, participant),
        )
        write_parts(task.result, [encode_evaluation(scores)])
    return task


def participant_folder(run: Path, k: int) -> Path:
    """Return where participant k of a simulation keeps what no one is sent."""
    return run / "participants" / f"{k:06d}"


def _tasks(coordinator: Coordinator, count: int, clock: Callable[[], float]) -> list[Task]:
    """Return what the participants have to do now."""
    folder = coordinator.directory.path
    return [
        Task(
            *(work, coordinator.model_path, coordinator.state_path),
            *(folder / f"result-{k:06d}", participant_folder(folder, k)),
        )
        for k in range(count)
        if (work := coordinator.work(k, clock()))
    ]


def _head(folder: Path, counted: int, algorithm: str, participant: Participant) -> dict[str, Vector]:
    head = load_head(folder, counted, algorithm)
    return {OWN_HEAD: head.of(participant.train_set.classes)} if head else {}


def _deliver(coordinator: Coordinator, task: Task, now: float) -> None:
    work = task.work
    if work.kind is Stage.TRAIN:
        coordinator.deliver(work.participant, work.round, task.result, now)
    else:
        coordinator.deliver_evaluation(work.participant, work.round, read_file(task.result) or b"", now)
        with storing(task.result):
            remove(task.result)
