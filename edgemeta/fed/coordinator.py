"""The round's state machine: messages and the time go in, replies come out.

It never sleeps, never opens a connection and never runs a model. A simulation drives it by function calls, a gateway
by HTTP; so there is one copy of the rules. What it has accepted is on disk before it answers, and opening the same
directory again goes on from there. Each round has two stages: "train" (updates are collected and folded into the next
model) and, on evaluated rounds, "evaluate" (all participants score that model). `now` is in seconds, of a clock that
only goes forward.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgemeta.errors import ConfigError
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered, Work, admit_evaluation, admit_update, task_bytes
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.scores import Record, combine, new_record, summarize, with_training
from edgemeta.fed.selection import evaluators, trainers
from edgemeta.fed.server_step import ServerState, advance, begin, load_state, travelling
from edgemeta.fed.upload import most_bytes
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import load_parameters
from edgemeta.storage import storing, sync_folder, write_atomic

log = logging.getLogger("edgemeta")


class Coordinator:
    """One run. Raises, from its methods, Refused for messages that do not count, and StorageError.

    theta: where a new run starts. roster: the participants that have joined so far. name: what the log calls one.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        theta: Vector,
        directory: RunDirectory,
        roster: Iterable[int],
        now: float,
        name: Callable[[int], str] = str,
    ) -> None:
        self.plan, self.model, self.directory, self.roster, self._name = plan, model, directory, set(roster), name
        self._began = self._opened = now
        self._updates: dict[int, Delivered] = {}
        self._scores: dict[int, dict[str, Any]] = {}
        self._server = (-1, ServerState())  # what is kept beside the model of a round
        committed = directory.load_progress()
        self.progress = committed or Progress(record={**self._new_record(0)})
        self._away = set(self.progress.away)
        if committed:
            self._recover()
        else:
            begin(self.directory, self.plan, model, theta)
            self._commit()
        self._go_on(now)

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return self.progress.stage is Stage.OVER

    @property
    def model_path(self) -> Path:
        """The file of the current global model; it stays as it is when a newer one comes."""
        return self.directory.round_model(self.progress.model)

    @property
    def state_path(self) -> Path:
        """The file of what the server keeps beside it, where it keeps something."""
        return self.directory.round_state(self.progress.model)

    @property
    def beside(self) -> dict[str, Vector]:
        """The vectors that go out with the open task's theta, by name."""
        if self._server[0] != self.progress.model:
            self._server = self.progress.model, load_state(self.state_path)
        return travelling(self._server[1], self.plan.recipe(self.progress.round)) if self._trains else {}

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each vector of the open task has, in the order in which they go out."""
        return {"theta": self.model.layout.size} | {name: vector.size for name, vector in self.beside.items()}

    @property
    def most_update_bytes(self) -> int:
        """What an update of the open round weighs at most."""
        return most_bytes(self.sizes, self.plan.recipe(self.progress.round).upload)

    @property
    def missing(self) -> list[int]:
        """Who has been asked in this stage and has not delivered yet."""
        return [k for k in self.progress.cohort if k not in self._delivered]

    @property
    def joined(self) -> list[int]:
        """The training participants on the roster."""
        return sorted(k for k in self.roster if k < self.plan.training_participants)

    @property
    def quorum(self) -> int:
        """How many training participants must be on the roster before a stage opens."""
        return max(self.plan.server.min_available_clients or 1, self._min_fit)

    def seconds_left(self, now: float) -> float:
        """Return the time until the open stage's deadline."""
        return max(0.0, self._opened + self.plan.server.round_deadline_s - now)

    def join(self, participant: int) -> None:
        """Put a participant on the roster; one that is on it stays there."""
        self.roster.add(participant)
        self._away.discard(participant)

    def work(self, participant: int, now: float) -> Work | None:
        """Return the participant's task, or None when there is nothing for it to do now."""
        self._away.discard(participant)
        self._go_on(now)
        return self._task(participant) if participant in self.missing else None

    def is_new(self, stage: Stage, participant: int, round_number: int) -> bool:
        """Say whether a message of a stage would bring something new; raises Refused when nobody asked."""
        self._away.discard(participant)
        progress = self.progress
        if stage is Stage.TRAIN and round_number and progress.counted.get(str(participant)) == round_number:
            return False
        if (stage, round_number) != (progress.stage, progress.round):
            raise Refused(
                Reason.WRONG_ROUND, f"round {round_number} is not open for this: it is round {progress.round}"
            )
        if participant not in progress.cohort:
            raise Refused(Reason.NOT_IN_COHORT, f"participant {participant} was not asked in round {round_number}")
        return participant not in self._delivered

    def deliver(self, participant: int, round_number: int, file: Path, now: float) -> None:
        """Accept an update that lies complete in `file`, which is moved away; a repeated one changes nothing."""
        if self.is_new(Stage.TRAIN, participant, round_number):
            delivered = self._admit(file, round_number)
            kept = self.directory.update_path(round_number, participant)
            with storing(kept):
                os.replace(file, kept)
                if self.directory.durable:
                    sync_folder(kept.parent)
            self._updates[participant] = delivered
            self._go_on(now)

    def deliver_evaluation(self, participant: int, round_number: int, body: bytes, now: float) -> None:
        """Accept a participant's scores of the current model; repeated ones change nothing."""
        if self.is_new(Stage.EVALUATE, participant, round_number):
            scores = admit_evaluation(body, self.plan.config.evaluation)
            if self.directory.durable:
                write_atomic(self.directory.evaluation_path(round_number, participant), [body])
            self._scores[participant] = scores | {"bytes": len(body)}
            self._go_on(now)

    def tick(self, now: float) -> None:
        """Act on the deadline: close the stage with what there is, or open the round again when that is too little.

        Also what a full disk kept from happening is tried again here.
        """
        self._go_on(now)
        if not self.progress.cohort or self.seconds_left(now) > 0:
            return
        self._away.update(self.missing)
        if not self._trains:
            self._close_evaluation(now)
        elif len(self._updates) >= self._min_fit:
            self._close_training(now)
        else:
            log.warning(
                "round %d: only %d of %d delivered before the deadline, and %d are needed: opened again (missing: %s)",
                self.progress.round,
                len(self._updates),
                len(self.progress.cohort),
                self._min_fit,
                ", ".join(map(self._name, self.missing)),
            )
            self._commit(cohort=[], attempt=self.progress.attempt + 1)
        self._go_on(now)

    def _task(self, participant: int) -> Work:
        progress = self.progress
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

    @property
    def _delivered(self) -> Mapping[int, Any]:
        return self._updates if self._trains else self._scores

    @property
    def _trains(self) -> bool:
        return self.progress.stage is Stage.TRAIN

    @property
    def _record(self) -> Record:
        """What is known of the round at work so far: a copy."""
        return cast(Record, dict(self.progress.record))

    @property
    def _min_fit(self) -> int:
        return self.plan.server.min_fit_clients or 1

    def _go_on(self, now: float) -> None:
        """Do what needs no more messages: draw the cohort of a stage that has none, close a stage that has all."""
        while not self.finished:
            if not self.progress.cohort:
                cohort = self._cohort()
                if not cohort:
                    return
                self._commit(cohort=cohort)
                self._opened = now
            if self.missing:
                return
            (self._close_training if self._trains else self._close_evaluation)(now)
        if self.directory.summary() is None:
            self.directory.write_summary(summarize(self.directory.history()))

    def _cohort(self) -> list[int]:
        """Return who takes part in the stage that opens; nobody, as long as too few are on the roster."""
        progress, joined = self.progress, self.joined
        if len(joined) < self.quorum:
            return []
        if not self._trains:
            return evaluators(self.plan, progress.round, self.roster, self._away)
        drawn = trainers(self.plan, progress.round, progress.attempt, joined, self._away)
        return sorted({*drawn, *self._updates})  # what was delivered before the round was opened again counts

    def _close_training(self, now: float) -> None:
        """Fold the updates, in order of participant number, into the next model, and commit it."""
        progress, updates = self.progress, dict(sorted(self._updates.items()))
        weights = {k: update.samples for k, update in updates.items()}
        advance(self.directory, self.plan, self.model, progress, self.sizes, weights)
        sent = sum(map(self._bytes_down, updates))
        record = with_training(self._record, updates.values(), len(self.missing), sent)
        counted = progress.counted | {str(k): progress.round for k in updates}
        if self.plan.is_evaluated(progress.round):
            self._commit(
                stage=Stage.EVALUATE, model=progress.round, cohort=[], attempt=0, counted=counted, record=record
            )
        else:
            self._finish_round(now, record, model=progress.round, counted=counted)
        self._updates.clear()
        self.directory.forget_before(progress.round)

    def _close_evaluation(self, now: float) -> None:
        """Put the scores that came into the round's record, and finish the round."""
        record, train = self._record, self.plan.training_participants
        if scores := [self._scores[k] for k in sorted(self._scores) if k < train]:
            record["evaluation"] = combine(scores)
        if scores := [self._scores[k] for k in sorted(self._scores) if k >= train]:
            record["evaluation_new"] = combine(scores)
        if self.missing:
            record["evaluation_missing"] = self.missing
        record["bytes_down"] += sum(map(self._bytes_down, self._scores))
        record["bytes_up"] += sum(scores["bytes"] for scores in self._scores.values())
        self._finish_round(now, record)
        self._scores.clear()

    def _finish_round(self, now: float, record: Record, **changes: Any) -> None:
        progress = self.progress
        record["seconds"] = round(now - self._began, 3)
        history = self.directory.append_record(record, after=progress.history)
        following, over = progress.round + 1, progress.round == self.plan.last_round
        new = {"round": following, "stage": Stage.OVER if over else Stage.TRAIN, "record": self._new_record(following)}
        self._commit(cohort=[], attempt=0, history=history, **new, **changes)
        self._began = now

    def _commit(self, **changes: Any) -> None:
        """Make the changed progress the place where the run goes on, on disk first and then here."""
        progress = replace(self.progress, away=sorted(self._away), **changes)
        self.directory.commit(progress)
        self.progress = progress

    def _new_record(self, round_number: int) -> Record:
        phase = self.plan.config.phases[self.plan.phase_of(round_number)]
        return new_record(round_number, *((phase.name, phase.algorithm) if round_number else ("start", "")))

    def _bytes_down(self, participant: int) -> int:
        return task_bytes(self._task(participant).header(self.sizes), self.sizes)

    def _admit(self, file: Path, round_number: int) -> Delivered:
        recipe = self.plan.recipe(round_number)
        return admit_update(file, round_number, self.model.layout, self.sizes, recipe.upload)

    def _recover(self) -> None:
        """Find again what an interrupted stage had already collected."""
        model, _, _, _ = load_parameters(self.model_path)
        if model.layout != self.model.layout:
            raise ConfigError(f"{self.directory.path} holds a run of another network: give another folder")
        progress = self.progress
        kind = {Stage.TRAIN: "update", Stage.EVALUATE: "evaluation", Stage.OVER: ""}[progress.stage]
        for k, path in self.directory.collected(progress.round, kind).items():
            try:
                if self._trains:
                    self._updates[k] = self._admit(path, progress.round)
                else:
                    body = path.read_bytes()
                    self._scores[k] = admit_evaluation(body, self.plan.config.evaluation) | {"bytes": len(body)}
            except Refused as error:  # a card that lost what it had said to have written: the device is asked again
                log.warning("%s is damaged, and is dropped: %s", path, error)
                path.unlink()
