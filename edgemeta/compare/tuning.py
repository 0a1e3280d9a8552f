"""Settings chosen on training data set aside: what is scored in the end has no say in it.

Every combination gets a whole run at the first seed, and is judged by the training participants, adapted: those held
out take no part. Combinations that differ in how a model is adapted share one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgemeta import disk
from edgemeta.compare.entries import Entry, Kind, asked
from edgemeta.compare.rows import FORMAT, Scores, Tried, kept
from edgemeta.compare.work import Place, adapted_scores, every_score, prepared, trained
from edgemeta.config import EvaluationConfig, RunConfig
from edgemeta.errors import DivergedError
from edgemeta.storage import storing, write_kept


@dataclass(frozen=True)
class Chosen:
    """The configuration that did best, what was tried, the best first, and the share of training data set aside."""

    config: RunConfig
    tried: list[Tried] = field(default_factory=list)
    validation: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """What is kept of a choice: what was asked, and what came of each combination, in their order."""

    asked: dict[str, Any]
    tried: list[Tried]


def choose(entry: Entry, seed: int, place: Place) -> Chosen:
    """Return an entry's configuration with the settings that do best; nothing is run again that has been."""
    path = place.out / "tuned" / f"{entry.name}.json"
    candidates, found = entry.candidates(), kept(path, Tuned)
    if found is None or found.asked != asked(entry, seed):
        with storing(path):
            disk.make_folder(path.parent)
        found = Tuned(asked(entry, seed), _tried(entry, seed, candidates, place))
        write_kept(path, found, FORMAT)
    order = sorted(range(len(candidates)), key=lambda i: -(found.tried[i].accuracy or 0.0))
    return Chosen(candidates[order[0]][1], [found.tried[i] for i in order], entry.tune.validation)


def _tried(
    entry: Entry, seed: int, candidates: Sequence[tuple[dict[str, Any], RunConfig]], place: Place
) -> list[Tried]:
    models: list[RunConfig] = []  # those to be trained: configurations without their evaluation
    results: list[Tried] = []
    for chosen, config in candidates:
        data = replace(config.data, validation=entry.tune.validation)
        model = replace(config, seed=seed, data=data, evaluation=EvaluationConfig(every=10**9))
        if model not in models:
            models.append(model)
        text = ", ".join(f"{key} = {value}" for key, value in chosen.items())
        place.shown.begins(f"{entry.name}, choosing settings on data set aside: {text}")
        try:
            scores = _scores(entry, model, config.evaluation, models.index(model), len(results), place)
            train = [one for one in scores if one.participant < config.data.participants - config.data.held_out]
            accuracy = np.average([one.after for one in train], weights=[one.test for one in train])
            results.append(Tried(chosen, float(accuracy)))
        except DivergedError as error:
            results.append(Tried(chosen, diverged=str(error)))
    return results


def _scores(
    entry: Entry, model: RunConfig, way: EvaluationConfig, run: int, candidate: int, place: Place
) -> list[Scores]:
    ready, folder = prepared(entry, model), place.folder(f"{entry.name}-tuning-{run}")
    if entry.kind is Kind.ALONE:
        return every_score(entry, ready, folder, place)
    result = trained(ready, folder, place)
    return adapted_scores(ready, result, {"": replace(way, grid=(), episodes=0)}, folder / f"scores-{candidate}", place)
