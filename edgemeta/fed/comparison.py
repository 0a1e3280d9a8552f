"""The baselines that a meta-learned run is shown beside: FedAvg with the same adaptation, and learning alone.

Each gets as many gradient evaluations on a participant as the run itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from edgemeta.config import PhaseConfig, RunConfig
from edgemeta.fed.client import client_update
from edgemeta.fed.participants import Participant
from edgemeta.fed.plan import Plan
from edgemeta.fed.scores import combine
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import adapt_as, score, steps_in
from edgemeta.meta.learners import learner
from edgemeta.nn import Model, Vector


def fedavg_of(config: RunConfig) -> RunConfig:
    """Return plain FedAvg with a resolved configuration's rounds, rates and gradient evaluations."""
    return replace(config, phases=tuple(map(_plain, config.phases)))


def alone(config: RunConfig, network: Model, theta: Vector, participants: Sequence[Participant]) -> dict[str, Any]:
    """Return the scores of participants that train alone from theta, for as long as the run trains each of them.

    {"evaluation": spreads, "evaluation_new": spreads} as in a round's record, "before" and "after" being the same:
    whoever trains alone has adapted already. New participants, too, are given the whole time.
    """
    scores = []
    for k, participant in enumerate(participants):
        reached, _ = one_alone(config, network, theta, participant, k)
        scores.append({"samples": participant.test.size, "before": reached, "after": reached, "grid": []})
    train = Plan(config).held_out.start
    parts: Mapping[str, Sequence[Any]] = {"evaluation": scores[:train], "evaluation_new": scores[train:]}
    return {key: combine(part) for key, part in parts.items() if part}


def one_alone(
    config: RunConfig, network: Model, theta: Vector, participant: Participant, k: int
) -> tuple[dict[str, float], int]:
    """Return participant k's scores after training alone from theta, and how many gradients that took."""
    recipe = _one_phase(config, len(participant.train_set), "protonet" if network.embeds else "fedavg")
    draw = partial(generator, config.seed, Stream.ALONE, k)
    update = client_update(network, recipe, {"theta": theta}, {}, participant.train, draw)
    theta = np.add(theta, update.shared["theta"])
    return _reached(config, network, theta, participant, draw(recipe.local_steps or 0)), update.gradient_evaluations


def _plain(phase: PhaseConfig) -> PhaseConfig:
    """Return a phase of plain SGD with as many gradient evaluations: more steps, as each takes one."""
    if phase.local_steps is None:  # an epoch sees every sample once, whatever the learner
        return replace(phase, algorithm="fedavg", settings={})
    steps = phase.local_steps * learner(phase.algorithm).evaluations(phase)
    return replace(phase, algorithm="fedavg", local_steps=steps, settings={})


def _reached(
    config: RunConfig, network: Model, theta: Vector, participant: Participant, rng: np.random.Generator
) -> dict[str, float]:
    """Return the scores of who has trained alone; an embedding takes its head from all of the training samples."""
    if not network.embeds:
        return score(network, theta, participant.test)
    own = adapt_as(config.evaluation, network, theta, participant.train, config.phases[-1].batch_size, rng)
    return score(own.model, own.theta, participant.test, own.classes)


def _one_phase(config: RunConfig, samples: int, algorithm: str) -> PhaseConfig:
    """Return all of a run's steps on one participant as one stretch of plain SGD."""
    steps = sum(steps_in(phase, samples) * phase.rounds for phase in map(_plain, config.phases))
    return replace(config.phases[-1], algorithm=algorithm, local_steps=steps, local_epochs=None, settings={})
