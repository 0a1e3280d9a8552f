"""Which of those that are there train in a round: the rows of `SELECTIONS`.

A selection is given the candidates in an order that was drawn, and leaves out some; the first ones of those that stay,
as many as a round asks, are the cohort.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgemeta.fed.similar import Sketches, grouped


@dataclass(frozen=True)
class Selection:
    """choose: (drawn, how many a round needs, sketches, how many groups, rng) -> those that stay, in order.

    sketched: whether the server keeps sketches of updates for it.
    """

    choose: Callable[[Sequence[int], int, Sketches, int, np.random.Generator], Sequence[int]]
    sketched: bool
    paper: str


def similar(
    drawn: Sequence[int], least: int, sketches: Sketches, groups: int, rng: np.random.Generator
) -> Sequence[int]:
    """Return those of the first one's group: a group's turn comes as often as it is large, so everyone's as often.

    Who has no sketch yet is of every group. Where a group is smaller than a round needs, the next ones fill up.
    """
    known = sorted(sketches.keys() & set(drawn))
    if len(known) < groups:
        return drawn
    found = grouped(np.stack([sketches[k] for k in known]).astype(np.float64), groups, rng)
    group = dict(zip(known, found.tolist(), strict=True))
    turn = next(group[k] for k in drawn if k in group)
    alike = [k for k in drawn if group.get(k, turn) == turn]
    others = [k for k in drawn if group.get(k, turn) != turn]
    return alike + others[: max(0, least - len(alike))]


SELECTIONS: dict[str, Selection] = {
    "random": Selection(lambda drawn, *_: drawn, False, "McMahan et al. 2017, arXiv:1602.05629"),
    "similar": Selection(similar, True, "by directions of updates, as Sattler et al. 2020, arXiv:1910.01991"),
}
