"""Where a run is."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgemeta.records import number

FORMAT = "edgemeta-progress/1"


class Stage(StrEnum):
    """What a round is doing, and what a participant is asked to do."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    OVER = "over"


@dataclass(frozen=True)
class Progress:
    """What is committed to disk. round, stage: what is at work; model: the round that led to the current model.

    cohort: who is asked in this stage, empty before it opens. away: who was missing and has not been heard since.
    counted: participant -> the last round in which its update counted. record: of the round at work, so far.
    history: how many bytes of history.jsonl count.
    """

    round: int = number(0, 0)
    stage: Stage = Stage.EVALUATE
    model: int = number(0, 0)
    attempt: int = number(0, 0)
    cohort: list[int] = field(default_factory=list)
    away: list[int] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    history: int = number(0, 0)
