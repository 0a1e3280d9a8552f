"""Power cuts: from a record of what a short run does to its disks, those that a cut may leave; each goes on rightly.

EDGEMETA_CUTS=all takes a cut of every kind before each flush, and RANDOM at random moments, and not a sample of so many
of these; EDGEMETA_CUTS="state 17" is one.
"""

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from disks import CUTS, Journal, cut, in_place_of_the_system
from inprocess import DEVICES, House, prepare, simulated
from processes import assert_same_run

WHICH = os.environ.get("EDGEMETA_CUTS", "24")
RANDOM = 1500
AGAIN = 0.5  # of the random ones have another cut while the run goes on
MACHINES = ["gateway", *(f"device-{k}" for k in range(DEVICES))]


def recorded(folder: Path, accepted: list[object]) -> Journal:
    """Run to the end, and return the record; folder: what was there before."""
    with in_place_of_the_system(Journal(folder)) as journal:
        House(folder, journal, accepted).go()
    assert isinstance(journal, Journal)
    return journal


def before_flushes(journal: Journal) -> list[tuple[int, dict[str, str]]]:
    """Return (where, how each machine is struck): by every kind of cut the one that was about to flush."""
    plans = []
    for at, (node, change) in enumerate(journal.journal):
        if node is not None and change is None and (struck := journal.machine(node)):
            plans += [(at, {name: kind if name == struck else "all" for name in MACHINES}) for kind in CUTS]
    return plans


def at_random(journal: Journal, moments: random.Random) -> tuple[int, dict[str, str]]:
    """Return the same, at any moment, for one machine or for all at once."""
    hit = MACHINES if moments.random() < 0.5 else [moments.choice(MACHINES)]
    kinds = {name: moments.choice([*CUTS]) if name in hit else "all" for name in MACHINES}
    return moments.randint(0, len(journal.journal)), kinds


def test_after_a_power_cut_at_any_moment_nothing_that_was_accepted_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, tmp_path)
    reference = simulated(Path("simulated"))
    Path("whole").mkdir()
    whole = recorded(Path("whole"), [])
    assert_same_run(Path("whole/gateway"), reference)
    systematic = before_flushes(whole)
    states: Sequence[int] = range(len(systematic) + RANDOM)
    if WHICH.startswith("state "):
        states = [int(WHICH.removeprefix("state "))]
    elif WHICH != "all":
        states = random.Random(1).sample(states, int(WHICH))
    for done, state in enumerate(states, 1):
        moments, journal, accepted, cuts = random.Random(state), whole, list[object](), 0
        by_plan = state < len(systematic)
        try:
            while cuts == 0 or (not by_plan and moments.random() < AGAIN):
                cuts += 1
                folder = Path(f"struck-{cuts}")
                plan = systematic[state] if by_plan else at_random(journal, moments)
                accepted += cut(journal, *plan, moments, folder)
                journal = recorded(folder, accepted)
                assert_same_run(folder / "gateway", reference)
        except BaseException:
            print(f'EDGEMETA_CUTS="state {state}" does it again, at cut {cuts} of it: {plan}')
            raise
        for folder in Path().glob("struck-*"):
            shutil.rmtree(folder)
        if WHICH == "all" and done % 500 == 0:
            with capsys.disabled():
                print(f"{done} of {len(states)} states after power cuts", flush=True)
