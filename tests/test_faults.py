"""A fault at every operation on files of gateway and devices: the run ends with the right bits, and nothing is lost.

EDGEMETA_FAULTS=all takes every fault at every operation and LASTING errors that stay for a while, not a sample of so
many; EDGEMETA_FAULTS="EIO 123 1" is the one at operation 123, for one operation.
"""

import os
import random
import shutil
from pathlib import Path

import pytest
from disks import FAULTS, Disk, in_place_of_the_system
from inprocess import House, prepare, simulated
from processes import assert_same_run

WHICH = os.environ.get("EDGEMETA_FAULTS", "20")
LASTING = 500


def faults(names: list[str]) -> list[tuple[str, int, int]]:
    """Return (fault, at which operation, for how many): all that can be, or a sample that has every kind."""
    every = [(fault, at, 1) for fault, where in FAULTS.items() for at, name in enumerate(names, 1) if name in where]
    moments = random.Random(len(names))
    if WHICH == "all":
        ill = [moments.choice(every) for _ in range(LASTING)]
        return [*every, *((fault, at, moments.randint(2, 60)) for fault, at, _ in ill if "kill" not in fault)]
    if not WHICH.isdecimal():
        fault, at, lasting = WHICH.rsplit(" ", 2)
        return [(fault, int(at), int(lasting))]
    drawn = moments.sample(every, int(WHICH))
    return [*drawn, *(next(one for one in reversed(every) if one[0] == fault) for fault in FAULTS)]


def test_a_fault_at_any_operation_costs_nothing_that_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, tmp_path)
    reference = simulated(Path("simulated"))
    with in_place_of_the_system(Disk()) as undisturbed:
        House(Path("undisturbed"), undisturbed).go()
    assert_same_run(Path("undisturbed/gateway"), reference)
    chosen = faults(undisturbed.names)
    for done, (fault, at, lasting) in enumerate(chosen, 1):
        folder = Path("struck")
        with in_place_of_the_system(Disk(at, fault, lasting)) as disk:
            try:
                house = House(folder, disk)
                house.go()
                assert disk.happened, "the operations are others than those that were counted"
                assert_same_run(folder / "gateway", reference)
                assert not [*folder.rglob("*.damaged")], "what could not be read was taken for damaged"
                assert "kill" in fault or len(set(house.made)) == len(house.made), "work was done twice"
            except BaseException:
                print(f'EDGEMETA_FAULTS="{fault} {at} {lasting}" does it again: {disk.happened}')
                raise
        shutil.rmtree(folder)
        if WHICH == "all" and done % 500 == 0:
            with capsys.disabled():
                print(f"{done} of {len(chosen)} faults", flush=True)
