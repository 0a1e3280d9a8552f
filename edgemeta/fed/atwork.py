"""A run at work, as one may look at it: where it is, who is asked, what goes out."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from edgemeta.config import PhaseConfig
from edgemeta.fed.collected import Collected
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.members import Members
from edgemeta.fed.messages import Work, task_bytes
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.fed.server_step import ServerState, load_state, scored_with, trained, travelling
from edgemeta.fed.similar import Sketches
from edgemeta.fed.standing import Standing
from edgemeta.fed.upload import most_bytes
from edgemeta.meta.learners import sizes
from edgemeta.nn import Model, Vector


class AtWork:
    """What a coordinator knows.

    roster: who has joined; now: when the open stage was opened, as far as is known; name: what the log calls one.
    """

    # What is said of a stage for which enough have joined, of who is missing from a round, and of who is held.
    opens = "the next request for work opens it"
    gone = (
        "if one of them does not come back, 'edgemeta devices replace NAME NEW' gives its place to another board, and "
        "'edgemeta devices remove NAME' has the run go on without it"
    )
    released = "'edgemeta devices release {}' lets it take part again"

    def __init__(
        self,
        plan: Plan,
        model: Model,
        directory: RunDirectory,
        roster: Iterable[int],
        progress: Progress,
        now: float,
        name: Callable[[int], str],
    ) -> None:
        self.plan, self.model, self.directory, self.progress = plan, model, directory, progress
        self.members = Members(roster, progress)
        self._opened, self._name = now, name
        self._collected = Collected(directory, plan, model)
        self.classes, self.shares = self._collected.classes, self._collected.shares
        self._server = (-1, ServerState())  # what is kept beside the model of a round

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
        return self._beside(self.progress.round, travelling if self._trains else scored_with)

    @property
    def sketches(self) -> Sketches:
        """What is kept of the updates of those who have trained; of who was removed, nothing any more."""
        return trained(self._state.sketches, self.progress)

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each vector of the open task has, in the order in which they go out."""
        theta = sizes(self.model, self.plan.recipe(self.progress.round).algorithm if self._trains else None)["theta"]
        return {"theta": theta} | {name: vector.size for name, vector in self.beside.items()}

    @property
    def collecting(self) -> int:
        """The round in which an update counts that comes now: while a model is scored, the next one."""
        return self.progress.round + (self.progress.stage is Stage.EVALUATE)

    @property
    def update_sizes(self) -> dict[str, int]:
        """How many numbers each vector has of an update that counts in that round."""
        beside = self._beside(self.collecting, travelling)
        theta = sizes(self.model, self.plan.recipe(self.collecting).algorithm)["theta"]
        return {"theta": theta} | {name: vector.size for name, vector in beside.items()}

    @property
    def most_update_bytes(self) -> int:
        """What an update that comes now weighs at most."""
        return most_bytes(self.update_sizes, self.plan.recipe(self.collecting).upload)

    @property
    def missing(self) -> list[int]:
        """Who has been asked in this stage and has not delivered yet."""
        delivered = self._collected.of(self.progress.stage)
        return [k for k in self.progress.cohort if k not in delivered]

    @property
    def joined(self) -> list[int]:
        """The training participants on the roster."""
        return sorted(self.members.joined(self.plan))

    @property
    def quorum(self) -> int:
        """How many training participants must be on the roster before a stage opens."""
        return self.members.quorum(self.plan)

    def seconds_left(self, now: float) -> float:
        """Return the time until the open stage's deadline."""
        return max(0.0, self._opened + self.deadline_s - now)

    @property
    def deadline_s(self) -> float:
        """For how long the open stage is open: longer by a wake where it waits for boards that sleep."""
        return self.plan.server.round_deadline_s + self.members.longest_wake_s(self.plan, self.missing)

    @property
    def roster(self) -> set[int]:
        """Who has joined."""
        return self.members.roster

    @property
    def standing(self) -> Standing:
        """Who is not waited for, or asked no more."""
        return self.members.standing

    def has_trained(self, participant: int) -> bool:
        """Say whether a participant's scores are those of a known one: held-out ones and newcomers are new.

        Where as many as join take part, one is new until an update of it has counted; at the start nobody is.
        """
        known = not self.plan.is_open or not self.progress.round or str(participant) in self.progress.counted
        return known and self.plan.trains(participant)

    @property
    def _trains(self) -> bool:
        return self.progress.stage is Stage.TRAIN

    @property
    def _min_fit(self) -> int:
        return self.plan.server.min_fit_clients or 1

    @property
    def shortage(self) -> str:
        """Say what keeps a quorum from coming about that was there, and what mends it; "" where nothing does."""
        held = sorted(self.standing.held & set(self.joined))
        able, needed = len(self.joined) - len(held), self._min_fit
        if self.finished or able >= needed or not (held or self.members.removed):
            return ""
        ways = [f"'edgemeta devices release {self._name(k)}'" for k in held[:1]]
        ways += ["'edgemeta enroll NAME' for another board"]
        ways += [f"'edgemeta run set server.min_fit_clients={able}'"] if able else []
        return f"{needed} are needed for a round, and {able} are left: {' or '.join(ways)} lets it go on"

    def _draw(self) -> list[int]:
        """Return who takes part in the stage that opens; nobody, as long as too few are on the roster."""
        return self.members.cohort(self.plan, self.progress, self._collected.updates, self.sketches)

    def _trains_aside(self, participant: int) -> bool:
        """Say whether a sleeper, who was not asked in this round, may train on its model all the same."""
        there, progress = self._collected.updates.get(participant), self.progress
        if not self._trains or not progress.cohort or (there and there.round == progress.round):
            return False
        return participant in self.members.sleepers(self.plan) - set(progress.without)

    def _is_first(self, participant: int, round_number: int) -> bool:
        """Say whether a sleeper's update is not there yet; raises Refused when an earlier one is: one counts."""
        there = self._collected.updates.get(participant)
        if there and there.round != round_number:
            said = f"the update of round {there.round} counts in the open one: send that of round {round_number} later"
            raise Refused(Reason.TOO_OFTEN, said)
        return there is None

    def _counts_now(self, participant: int, round_number: int) -> bool:
        """Say whether a sleeper's update of a round counts in the one that is open: its task may be some rounds old."""
        plan, progress, now = self.plan, self.progress, self.collecting
        sleeps = participant in self.members.sleepers(plan) - set(progress.without)
        if not sleeps or self.finished or now > (plan.last_round or math.inf):
            return False
        oldest = max(now - plan.server.max_lag, progress.counted.get(str(participant), 0) + 1)
        return oldest <= round_number <= progress.round and plan.phase_of(round_number) == plan.phase_of(now)

    def _beside(
        self, round_number: int, which: Callable[[ServerState, PhaseConfig], dict[str, Vector]]
    ) -> dict[str, Vector]:
        return which(self._state, self.plan.recipe(round_number))

    @property
    def _state(self) -> ServerState:
        if self._server[0] != self.progress.model:
            self._server = self.progress.model, load_state(self.state_path)
        return self._server[1]

    def _task(self, participant: int) -> Work:
        return self.plan.task(self.progress, participant, self.model.layout)

    def _bytes_down(self, participants: Iterable[int]) -> int:
        return sum(task_bytes(self._task(k).header(self.sizes), self.sizes) for k in participants)
