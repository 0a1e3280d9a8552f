"""What a participant does for a round: a pure function of what it was sent, its own data and its private state."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.errors import DivergedError
from edgemeta.meta import LocalState, Samples, begin, steps_in, take_step
from edgemeta.meta.learner import Vectors
from edgemeta.meta.learners import LEARNERS, keeps_head, trained
from edgemeta.meta.personal_heads import OWN_HEAD
from edgemeta.meta.rivals import HEAD, joined, parted
from edgemeta.nn import Model, Vector

Draws = Callable[[int], np.random.Generator]


@dataclass(frozen=True)
class Update:
    """What a round's local work leads to. shared: name -> client - server; private stays on the device."""

    shared: Mapping[str, Vector]
    private: Mapping[str, Vector]
    samples: int
    loss: float
    gradient_evaluations: int


def client_update(
    model: Model, recipe: PhaseConfig, shared: Vectors, private: Vectors, data: Samples, draw: Draws, classes: int = 0
) -> Update:
    """Do a round's local steps from the shared vectors, and return the update; no argument is changed.

    draw: step -> the step's own generator. classes: how many the participant has, where everyone has its own. Raises
    DivergedError when a loss is not finite.
    """
    network = trained(model, recipe.algorithm, classes)
    state = begin(network, recipe, shared, private)
    for _ in local_steps(network, recipe, state, data, draw):
        pass
    return finish(recipe, shared, state, data.size)


def local_steps(model: Model, recipe: PhaseConfig, state: LocalState, data: Samples, draw: Draws) -> Iterator[None]:
    """Take the local steps that are left, yielding after each: stop there, save the state, go on another day.

    model: the network that is `trained`.
    """
    with model.scratch() as workspace:
        while state.step < steps_in(recipe, data.size):
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the loss
                take_step(model, recipe, state, data, draw(state.step), workspace)
            if not math.isfinite(state.loss_sum):
                raise _diverged(recipe, state.step)
            yield


def finish(recipe: PhaseConfig, shared: Vectors, state: LocalState, samples: int) -> Update:
    """Return the update of finished local steps; raises DivergedError when it holds what is not finite."""
    method, head = LEARNERS[recipe.algorithm], OWN_HEAD if keeps_head(recipe.algorithm) else HEAD
    with np.errstate(over="ignore", invalid="ignore"):
        ended = method.ended(state.vectors, joined(shared), recipe, state.step)
        vectors = parted(state.vectors | dict(ended), shared["theta"].size, head)
        deltas = {name: vectors[name] - start for name, start in shared.items()}
    if not all(np.isfinite(delta).all() for delta in deltas.values()):
        raise _diverged(recipe, state.step)
    return Update(
        shared=deltas,
        private={name: v for name, v in vectors.items() if name not in shared and name not in method.begun},
        samples=samples,
        loss=state.loss_sum / state.step,
        gradient_evaluations=state.step * method.evaluations(recipe),
    )


def _diverged(recipe: PhaseConfig, step: int) -> DivergedError:
    return DivergedError(
        f"training diverged: loss or parameters are not finite after local step {step} ({recipe.algorithm}); "
        f"lower lr ({recipe.lr:g}) or inner_lr ({recipe.inner_lr:g})"
    )
