"""A run at work, as one may look at it: where it is, who is asked, what goes out."""

from collections.abc import Iterable
from pathlib import Path

from edgemeta.fed.collected import Collected
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Work, task_bytes
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.server_step import ServerState, load_state, travelling
from edgemeta.fed.upload import most_bytes
from edgemeta.nn import Model, Vector


class AtWork:
    """What a coordinator knows. roster: who has joined; now: when the open stage was opened, as far as is known."""

    def __init__(
        self,
        plan: Plan,
        model: Model,
        directory: RunDirectory,
        roster: Iterable[int],
        progress: Progress,
        now: float,
    ) -> None:
        self.plan, self.model, self.directory, self.roster, self.progress = (
            plan,
            model,
            directory,
            set(roster),
            progress,
        )
        self._opened = now
        self._collected = Collected(directory, plan, model)
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
        delivered = self._collected.of(self.progress.stage)
        return [k for k in self.progress.cohort if k not in delivered]

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

    @property
    def _trains(self) -> bool:
        return self.progress.stage is Stage.TRAIN

    @property
    def _min_fit(self) -> int:
        return self.plan.server.min_fit_clients or 1

    def _task(self, participant: int) -> Work:
        return self.plan.task(self.progress, participant, self.model.layout)

    def _bytes_down(self, participants: Iterable[int]) -> int:
        return sum(task_bytes(self._task(k).header(self.sizes), self.sizes) for k in participants)
