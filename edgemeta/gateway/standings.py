"""What a run waits for, and what each of its devices is doing, in one word."""

from collections.abc import Callable, Iterable
from enum import StrEnum

from edgemeta.fed.atwork import AtWork
from edgemeta.fed.progress import Stage

SHOWN = 5  # names of missing devices in a line; the others are counted


class Doing(StrEnum):
    """The words; the protocol page says what each means."""

    HELD = "held"
    DELIVERED = "delivered"
    DIVERGED = "diverged"
    REFUSED = "refused"
    WORKS = "works"
    ASKED = "asked"
    RESTS = "rests"
    AWAY = "away"
    SLEEPS = "sleeps"
    WAITS = "waits"


def doing(run: AtWork, participants: Iterable[int]) -> dict[int, Doing]:
    """Return what each of these participants is doing; the first word of the list that fits is the one."""
    standing, members, cohort = run.standing, run.members, set(run.progress.cohort)
    who = {
        Doing.HELD: standing.held,
        Doing.DELIVERED: cohort.difference(run.missing),
        Doing.DIVERGED: cohort & standing.diverged,
        Doing.REFUSED: cohort & standing.out,
        Doing.WORKS: cohort & standing.busy,
        Doing.ASKED: cohort - members.away,
        Doing.RESTS: standing.resting(run.progress.round),
        Doing.AWAY: members.away,
        Doing.SLEEPS: set(members.wakes),
    }
    return {k: next((word for word, those in who.items() if k in those), Doing.WAITS) for k in participants}


def waiting_for(run: AtWork, name: Callable[[int], str], now: float) -> str:
    """Say in a line what a run is waiting for; name: of a participant; now: seconds."""
    progress = run.progress
    if run.finished:
        return "the run is over"
    what = f"round {progress.round}" + (", evaluation" if progress.stage is Stage.EVALUATE else "")
    if not progress.cohort:
        there = f"{len(run.joined)} of {run.quorum} training devices have joined"
        if len(run.joined) >= run.quorum:
            there = run.opens
        return f"{what}: {run.shortage or there}"
    missing = [name(k) for k in run.missing]
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return (
        f"{what}: {len(progress.cohort) - len(missing)} of {len(progress.cohort)} devices, "
        f"{run.seconds_left(now):.0f} s left, missing: {', '.join(missing[:SHOWN])}{more}"
        + (f"; {run.shortage}" if run.shortage else "")
    )
