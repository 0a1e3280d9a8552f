"""Who takes part in a run: who has joined, who is away or sleeps, who was removed; and whom a stage asks.

A board that sleeps says for how long with its requests for work. Rounds do not wait for it: it trains on the model that
it finds when it wakes, and its update counts in the round that is open when it comes. Where most boards sleep, or too
few are awake for a round, they are asked like the others, and the round is open for one wake longer.
"""

from collections.abc import Collection, Iterable
from typing import Any

from edgemeta.fed.asking import evaluators, trainers
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.similar import Sketches
from edgemeta.fed.standing import Standing


class Members:
    """roster: who has joined; away: who was missing when last asked; wakes: who sleeps, and for how many seconds.

    removed: whose places are free again, as an operator let go of them.
    """

    def __init__(self, roster: Iterable[int], progress: Progress) -> None:
        self.roster, self.away, self.removed = set(roster), set(progress.away), set(progress.removed)
        self.wakes = {int(k): wake_s for k, wake_s in progress.wakes.items()}
        self.standing = Standing(progress.strikes, progress.rests)

    def facts(self) -> dict[str, Any]:
        """Return what the progress keeps of this."""
        return {
            "away": sorted(self.away),
            "removed": sorted(self.removed),
            "wakes": {str(k): wake_s for k, wake_s in self.wakes.items()},
            "strikes": self.standing.strikes,
            "rests": self.standing.rests,
        }

    def join(self, participant: int) -> None:
        """Put a participant on the roster; one that is on it stays there."""
        self.roster.add(participant)
        self.away.discard(participant)
        self.removed.discard(participant)

    def forget(self, participant: int, *, removed: bool) -> None:
        """Know nothing of a participant any more, as another board has its place, or none has."""
        if removed:
            self.roster.discard(participant)
            self.removed.add(participant)
        self.wakes.pop(participant, None)
        self.away.discard(participant) if removed else self.away.add(participant)
        self.standing.forget(participant)

    def says_wake(self, participant: int, wake_s: float) -> bool:
        """Take note of how long a participant sleeps, 0: not at all; return whether it is a new sleeper."""
        new = bool(wake_s) and participant not in self.wakes
        if wake_s:
            self.wakes[participant] = wake_s
        else:
            self.wakes.pop(participant, None)
        return new

    def joined(self, plan: Plan) -> set[int]:
        """Return the training participants on the roster."""
        return set(filter(plan.trains, self.roster))

    def quorum(self, plan: Plan) -> int:
        """Return how many training participants must be on the roster before a stage opens."""
        free = sum(map(plan.trains, self.removed))
        return max((plan.server.min_available_clients or 1) - free, plan.server.min_fit_clients or 1)

    def sleepers(self, plan: Plan) -> set[int]:
        """Return the training participants that sleep, where the run counts what they deliver later."""
        return (self.joined(plan) - self.standing.held) & self.wakes.keys() if plan.server.max_lag else set()

    def asleep(self, plan: Plan) -> set[int]:
        """Return the sleepers for which rounds do not wait: all or, where rounds need them, none."""
        able, sleepers = self.joined(plan) - self.standing.held, self.sleepers(plan)
        awake = able - sleepers - self.away
        needed = 2 * len(sleepers) > len(able) or len(awake) < (plan.server.min_fit_clients or 1)
        return set() if needed else sleepers

    def longest_wake_s(self, plan: Plan, missing: Collection[int]) -> float:
        """Return how long the slowest of those sleeps for which a round waits; 0 where it waits for no sleeper."""
        waited_for = self.sleepers(plan).intersection(missing) - self.asleep(plan)
        return max((self.wakes[k] for k in waited_for), default=0.0)

    def missed(self, missing: Collection[int], plan: Plan, round_number: int) -> None:
        """Take note of who let a deadline pass; a sleeper rests for no rounds because of that."""
        self.away.update(missing)
        self.standing.missed(set(missing) - self.sleepers(plan), round_number)

    def cohort(self, plan: Plan, progress: Progress, delivered: Collection[int], sketches: Sketches) -> list[int]:
        """Return who takes part in the stage that opens; nobody, as long as too few are on the roster.

        delivered: whose updates are there already, and count. sketches: of those who have trained.
        """
        joined, held = self.joined(plan), self.standing.held
        away = self.away | self.standing.resting(progress.round) | self.asleep(plan)
        if len(joined) < self.quorum(plan):
            return []
        if progress.stage is not Stage.TRAIN:
            return evaluators(plan, progress.round, self.roster - held, away)
        able = joined - held - set(progress.without)
        drawn = trainers(plan, progress.round, progress.attempt, able, away, sketches)
        return sorted({*drawn, *delivered})


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{seconds / 60:g} min" if seconds >= 120 else f"{seconds:g} s"
