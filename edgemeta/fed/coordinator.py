"""The round's state machine: messages and the time go in, replies come out.

It never sleeps, never opens a connection and never runs a model. A simulation drives it by function calls, a gateway
by HTTP; so there is one copy of the rules. What it has accepted is on disk before it answers, and opening the same
directory again goes on from there. Each round has two stages: "train" (updates are collected and folded into the next
model) and, on evaluated rounds, "evaluate" (all participants score that model). `now` is in seconds, of a clock that
only goes forward.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgemeta.errors import ConfigError, ModelFileError, StorageError
from edgemeta.fed.atwork import AtWork
from edgemeta.fed.changes import Change, stopped
from edgemeta.fed.closing import close, repeat
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.members import duration
from edgemeta.fed.messages import Work
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.scores import Record, summarize, with_evaluation
from edgemeta.fed.server_step import begin
from edgemeta.fed.standing import STRIKES
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import load_parameters

log = logging.getLogger("edgemeta")


class Coordinator(AtWork):
    """One run. Raises, from its methods, Refused for messages that do not count, and StorageError.

    theta: where a new run starts, None for one that has begun. roster: who has joined. name: what the log calls one.
    own: who brings its own data.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        theta: Vector | None,
        directory: RunDirectory,
        roster: Iterable[int],
        now: float,
        name: Callable[[int], str] = str,
        own: Iterable[int] = (),
    ) -> None:
        committed = directory.load_progress()
        progress = committed or Progress(record={**plan.new_record(0)})
        super().__init__(plan, model, directory, roster, progress, now, name)
        self.own, self._began, self._said = set(own), now, ""
        self._closing = False  # whether the open stage may be closed on disk already: nothing more counts in it then
        if committed:
            if load_parameters(self.model_path).model.layout != model.layout:
                raise ConfigError(f"{directory.path} holds a run of another network: give another folder")
            self._collected.recover(self.progress, lambda: self.update_sizes)
        else:
            assert theta is not None
            begin(self.directory, self.plan, model, theta)
            self._commit()
        self._go_on(now)

    def join(self, participant: int) -> None:
        """Put a participant on the roster; one that is on it stays there."""
        self.members.join(participant)

    def work(self, participant: int, now: float, wake_s: float = 0.0) -> Work | None:
        """Return the participant's task, or None when there is nothing for it to do now.

        wake_s: for how long it sleeps between two wakes; 0: it does not.
        """
        self.members.away.discard(participant)
        if self.members.says_wake(participant, wake_s):
            self._commit()  # it is known again after a restart
            log.info("%(device)s wakes every %(every)s", {"device": self._name(participant), "every": duration(wake_s)})
        self._go_on(now)
        if participant in self.standing.diverged:
            return None
        if participant in self.missing:
            self.standing.busy.add(participant)
            return self._task(participant)
        return self._task(participant) if self._trains_aside(participant) else None

    def is_new(self, stage: Stage, participant: int, round_number: int) -> bool:
        """Say whether a message of a stage would bring something new; raises Refused when nobody asked."""
        self.members.away.discard(participant)
        progress = self.progress
        if stage is Stage.TRAIN and round_number and progress.counted.get(str(participant)) == round_number:
            return False
        if stage is Stage.TRAIN and self._counts_now(participant, round_number):
            return self._is_first(participant, round_number)
        if (stage, round_number) != (progress.stage, progress.round):
            late = f", and an update may come {self.plan.server.max_lag} rounds late"
            raise Refused(
                Reason.WRONG_ROUND,
                f"round {round_number} is not open for this: it is round {progress.round}"
                + late * (participant in self.members.wakes),
            )
        if participant not in progress.cohort:
            raise Refused(Reason.NOT_IN_COHORT, f"participant {participant} was not asked in round {round_number}")
        return participant not in self._collected.of(stage)

    def deliver(self, participant: int, round_number: int, file: Path, now: float) -> None:
        """Accept an update that lies complete in `file`, which is moved away; a repeated one changes nothing."""
        if self.is_new(Stage.TRAIN, participant, round_number):
            into, sizes = self.collecting, self.update_sizes
            self._add(
                participant, lambda: self._collected.add_update(participant, round_number, file, sizes, into), now
            )

    def deliver_evaluation(self, participant: int, round_number: int, body: bytes, now: float) -> None:
        """Accept a participant's scores of the current model; repeated ones change nothing."""
        if self.is_new(Stage.EVALUATE, participant, round_number):
            self._add(participant, lambda: self._collected.add_scores(participant, round_number, body), now)

    def diverged(self, participant: int, round_number: int, now: float) -> None:
        """Take note that a participant's training of this round diverges: it is not waited for.

        When more than half of the cohort says so, it is the model's fault, and the round before is repeated.
        """
        said = self.standing.diverged
        if self.is_new(Stage.TRAIN, participant, round_number) and participant not in said:
            of = {"round": round_number, "device": self._name(participant)}
            log.warning("round %(round)d: the model diverges on %(device)s", of)
            said.add(participant)
            self.standing.out.add(participant)
            if 2 * len(said) > len(self.progress.cohort):
                self._repeat_last()
            self._go_on(now)

    def hold(self, participant: int) -> None:
        """Ask a participant no more, until it is released."""
        self._commit(strikes=self.standing.strikes | {str(participant): STRIKES})

    def release(self, participant: int) -> None:
        """Let a participant take part again, from the next stage on."""
        self._commit(strikes={k: count for k, count in self.standing.strikes.items() if k != str(participant)})

    def remove(self, participant: int, now: float) -> None:
        """Let go of a participant: it is asked no more, no quorum counts it, and its place is free.

        What it has delivered in the open stage counts.
        """
        progress, key = self.progress, str(participant)
        self.members.forget(participant, removed=True)
        delivered = self._collected.of(progress.stage)
        before = progress.before and replace(progress.before, counted=_without(progress.before.counted, key))
        self._commit(
            cohort=[k for k in progress.cohort if k != participant or k in delivered],
            counted=_without(progress.counted, key),
            before=before,
        )
        self._go_on(now)

    def replace(self, participant: int) -> None:
        """Have another board take a participant's place: nothing is held against it, and it is away until it comes."""
        self.members.forget(participant, removed=False)
        self._commit()

    def follow(self, changes: Sequence[Change], plan: Plan, now: float) -> None:
        """Go on by what was asked for; changes: all of the run's; plan: the one that they lead to."""
        new = changes[self.progress.changes :]
        if not new:
            return
        settings = {key: value for change in new for key, value in change.settings.items()}
        self.plan = self._collected.plan = plan
        if stopped(changes) and not self.finished:
            if not self._trains and self.progress.cohort:
                self._close(now)  # its model is there already, and what there is of scores goes with it
            self._commit(stage=Stage.OVER, cohort=[], changes=len(changes))
        elif self.finished and not stopped(changes) and self.progress.round <= (plan.last_round or math.inf):
            self.directory.remove_summary()
            self._commit(stage=Stage.TRAIN, record={**plan.new_record(self.progress.round)}, changes=len(changes))
            self._began = now
        else:
            record = self.progress.record
            told = {"changed": {**record.get("changed", {}), **settings}} if settings else {}
            self._commit(record={**record, **told}, changes=len(changes))
        self._go_on(now)

    def tick(self, now: float) -> None:
        """Act on the deadline: close the stage with what there is, or open the round again when that is too little.

        Also what a full disk kept from happening is tried again here.
        """
        self._go_on(now)
        if not self.progress.cohort or self.seconds_left(now) > 0:
            return
        self.members.missed(self.missing, self.plan, self.progress.round)
        delivered = len(self._collected.updates)
        if not self._trains or delivered >= self._min_fit:
            self._close(now)
        else:
            log.warning(
                "round %(round)d: only %(delivered)d of %(asked)d delivered before the deadline, and %(needed)d are "
                f"needed: opened again (missing: %(missing)s); {self.gone}",
                {"round": self.progress.round, "delivered": delivered, "asked": len(self.progress.cohort)}
                | {"needed": self._min_fit, "missing": ", ".join(map(self._name, self.missing))},
            )
            self._commit(cohort=[], attempt=self.progress.attempt + 1, without=[])  # who was left out may be needed
        self._go_on(now)

    def _add(self, participant: int, add: Callable[[], None], now: float) -> None:
        """Collect what a participant sent; what does not count is counted against it, and nobody waits for another."""
        if self._closing:
            raise StorageError("this round is being closed, which the disk did not take yet: try again later")
        try:
            with self.standing.judging(participant):
                add()
        finally:
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Do what needs no more messages: draw the cohort of a stage that has none, close a stage that has all."""
        while not self.finished:
            if not self.progress.cohort:
                if not (cohort := self._draw()):
                    return
                self._commit(cohort=cohort)
                self._opened = now
                self._say_sleep()
            enough = len(self._collected.of(self.progress.stage)) >= (self._min_fit if self._trains else 1)
            if not enough or not set(self.missing) <= self.standing.out | self.members.asleep(self.plan):
                return
            self._close(now)
        if self.directory.summary() is None:
            self.directory.publish()
            self.directory.write_summary(summarize(self.directory.history()))

    def _say_sleep(self) -> None:
        """Say that a stage is open for longer than usual, as it waits for boards that sleep; once for the same."""
        wake_s = self.members.longest_wake_s(self.plan, self.missing)
        count = len(self.members.sleepers(self.plan).intersection(self.missing))
        usual_s = self.plan.server.round_deadline_s
        said = f"{count} of {len(self.progress.cohort)} boards wake every {duration(wake_s)} or more often"
        if wake_s and said != self._said:
            longer = f"closes after {duration(self.deadline_s)} instead of {duration(usual_s)}"
            log.info(f"round %(round)d: {said}: it {longer}", {"round": self.progress.round})
            self._said = said

    def _close(self, now: float) -> None:
        self._closing = True
        (self._close_training if self._trains else self._close_evaluation)(now)

    def _close_training(self, now: float) -> None:
        """Fold the updates, in order of participant number, into the next model, and commit it."""
        progress, collected, standing = self.progress, self._collected, self.standing
        updates = dict(sorted(collected.updates.items()))
        try:
            closed = close(self.directory, self.plan, self.model, progress, updates, self.own, standing, self._name)
        except ModelFileError as error:
            collected.look_again(progress, lambda: self.update_sizes, error)
            self._closing = False
            return
        if not closed.counting:
            self._commit(cohort=[], attempt=progress.attempt + 1, **closed.changes)
            collected.set_aside(progress.round, closed.left_out)
            return
        record = closed.changes.pop("record") | {"bytes_down": self._bytes_down(closed.counting)}
        self.directory.forget_collected(progress.round + 1)  # of a time before this round was repeated
        if self.plan.is_evaluated(progress.round):
            self._commit(stage=Stage.EVALUATE, cohort=[], attempt=0, record=record, **closed.changes)
        else:
            self._finish_round(now, record, **closed.changes)
        collected.updates.clear()
        self.directory.forget_closed(progress)

    def _close_evaluation(self, now: float) -> None:
        """Put the scores that came into the round's record, and finish the round."""
        scores, record = self._collected.scores, cast(Record, self.progress.record)
        record = with_evaluation(record, scores, {k for k in scores if not self.has_trained(k)}, self.missing)
        record["bytes_down"] += self._bytes_down(scores)
        self._finish_round(now, record)
        scores.clear()

    def _finish_round(self, now: float, record: Record, **changes: Any) -> None:
        progress = self.progress
        record["seconds"] = round(now - self._began, 3)
        history = self.directory.append_record(record, after=progress.history)
        following, over = progress.round + 1, progress.round == self.plan.last_round
        stage, new = Stage.OVER if over else Stage.TRAIN, {**self.plan.new_record(following)}
        self._commit(round=following, stage=stage, record=new, history=history, cohort=[], attempt=0, **changes)
        self._began = now

    def _repeat_last(self) -> None:
        changes = repeat(self.plan, self.progress, self.standing, self._name)
        if changes is not None:
            number = self.progress.round
            self.directory.forget_collected(number - 1)  # a kill may have left them, and they would count again
            self._commit(**changes)
            self.directory.cut_history(self.progress.history)
            self._collected.updates.clear()
            self.directory.forget_collected(number)

    def _commit(self, **changes: Any) -> None:
        """Make the changed progress the place where the run goes on, on disk first and then here."""
        progress = replace(self.progress, **{**self.members.facts(), **changes})
        self.directory.commit(progress)
        for name in map(self._name, self.standing.committed(progress.strikes)):
            log.warning(f"%(device)s is asked no more: {self.released.format('%(device)s')}", {"device": name})
        if not progress.cohort:  # the stage is over, or is opened again
            self.standing.new_stage()
        self.progress, self._closing = progress, False


def _without(counted: Mapping[str, int], participant: str) -> dict[str, int]:
    return {k: number for k, number in counted.items() if k != participant}
