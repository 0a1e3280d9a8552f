"""Who is not waited for, and who is asked no more: participants that send what does not count, or far too much."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

from edgemeta.fed.refusal import Refused

STRIKES = 3  # in a row, after which a participant is asked no more until somebody releases it
REST = 8  # rounds for which who took a task and let the deadline pass is not asked; then twice as many, and so on
HEAVIEST = 10  # times the usual number of samples, beyond which what a device says of its own data weighs no more


class Standing:
    """strikes: participant -> how often in a row its update was refused, cut down or left out; kept in the progress.

    rests: participant -> [how often in a row it let a deadline pass with a task in its hands, the round in which it is
    asked again]; kept, too. out: who is not waited for in the open stage. diverged: of these, who said that the model
    diverges on it. busy: who has taken the open stage's task.
    """

    def __init__(self, strikes: Mapping[str, int], rests: Mapping[str, Sequence[int]]) -> None:
        self.strikes, self.rests = dict(strikes), {k: list(rest) for k, rest in rests.items()}
        self._said = self.held  # a refusal counts at once, and is known to be held with the next commit
        self.busy: set[int] = set()
        self.out: set[int] = set()
        self.diverged: set[int] = set()

    @property
    def held(self) -> set[int]:
        """Who is asked no more."""
        return {int(k) for k, count in self.strikes.items() if count >= STRIKES}

    def after(self, good: Collection[int], bad: Collection[int]) -> dict[str, int]:
        """Return the strikes when what some participants sent was good, and what others sent was bad.

        Who is held stays so.
        """
        kept = {k: count for k, count in self.strikes.items() if int(k) not in good or count >= STRIKES}
        return kept | {str(k): self.strikes.get(str(k), 0) + 1 for k in bad}

    def committed(self, strikes: Mapping[str, int]) -> set[int]:
        """Take over the strikes that the progress says, and return who is held since then."""
        self.strikes = dict(strikes)
        new, self._said = self.held - self._said, self.held
        return new

    def resting(self, round_number: int) -> set[int]:
        """Return who is not asked in a round, as it let deadlines pass."""
        return {int(k) for k, (_, until) in self.rests.items() if round_number < until}

    def missed(self, missing: Collection[int], round_number: int) -> None:
        """Take note of a deadline: who had the task rests for some rounds, longer each time, unless it delivers."""
        for k in self.busy.intersection(missing):
            times = self.rests.get(str(k), [0])[0] + 1
            self.rests[str(k)] = [times, round_number + 1 + REST * 2 ** min(times - 1, 5)]

    def delivered(self, participants: Collection[int]) -> None:
        """Forget the deadlines that participants missed, as they have delivered."""
        for k in participants:
            self.rests.pop(str(k), None)

    def forget(self, participant: int) -> None:
        """Know nothing of a participant any more."""
        self.strikes.pop(str(participant), None)
        self.rests.pop(str(participant), None)
        for who in (self.busy, self.out, self.diverged):
            who.discard(participant)

    @contextmanager
    def judging(self, participant: int) -> Iterator[None]:
        """Count a message that is refused in here against its sender, who is not waited for until it sends another."""
        try:
            yield
        except Refused:
            self.strikes = self.after([], [participant])
            self.out.add(participant)
            raise
        self.out.discard(participant)

    def new_stage(self) -> None:
        """Wait for everyone again."""
        self.out.clear()
        self.busy.clear()
        self.diverged.clear()


def weights(samples: Mapping[int, int], own: Collection[int]) -> dict[int, int]:
    """Return what each update weighs: its samples, but for those who bring their own data at most ten times the usual.

    own: who brings its own. The parts of a data set that was cut are known, and never changed.
    """
    most = HEAVIEST * int(median(samples.values()))
    return {k: min(count, most) if k in own else count for k, count in samples.items()}
