"""Where a run is."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgemeta.records import number

FORMAT = "edgemeta-progress/3"  # 1 had no norms, strikes and rests, 2 no changes, wakes and removed


class Stage(StrEnum):
    """What a round is doing, and what a participant is asked to do."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    OVER = "over"


@dataclass(frozen=True)
class Before:
    """What it takes to repeat the last round: where the run was before it was closed, and whose update was largest."""

    model: int
    history: int
    counted: dict[str, int] = field(default_factory=dict)
    norms: list[dict[str, list[float]]] = field(default_factory=list)
    largest: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """What is committed to disk. round, stage: what is at work; model: the round that led to the current model.

    cohort: who is asked in this stage, empty before it opens. away: who was missing and has not been heard since.
    counted: participant -> the last round in which its update counted. record: of the round at work, so far.
    history: how many bytes of history.jsonl count. norms: of the updates of this phase's last rounds. strikes, rests:
    see `edgemeta.fed.standing`. before: None where nothing can be repeated. without: who is not asked in this round.
    changes: how many of the run's changes were followed. wakes: who sleeps -> for how many seconds. removed: whose
    places are free again.
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
    norms: list[dict[str, list[float]]] = field(default_factory=list)
    strikes: dict[str, int] = field(default_factory=dict)
    rests: dict[str, list[int]] = field(default_factory=dict)
    before: Before | None = None
    without: list[int] = field(default_factory=list)
    changes: int = number(0, 0)
    wakes: dict[str, float] = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)
