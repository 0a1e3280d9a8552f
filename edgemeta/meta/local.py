"""A participant's local work: steps of one learner, which can stop between any two and go on from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import PhaseConfig
from edgemeta.errors import DataError
from edgemeta.meta.learner import GradientAt, Vectors
from edgemeta.meta.learners import keeps_head, learner
from edgemeta.meta.personal_heads import OWN_HEAD
from edgemeta.meta.rivals import joined
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace, subtract_scaled


@dataclass
class LocalState:
    """Where a participant is in its local work: everything that the next step depends on, but for the data.

    vectors: the local copies, of all kinds. velocity: of momentum SGD, for the vectors that have one.
    order: the shuffled indices of the current pass over the data; cursor: how many of them are used.
    """

    vectors: dict[str, Vector]
    velocity: dict[str, Vector]
    order: NDArray[np.int64]
    cursor: int = 0
    step: int = 0
    loss_sum: float = 0.0

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays, for a tensor file."""
        numbers = np.array([self.cursor, self.step, self.loss_sum], np.float64)
        vectors = {f"vector.{name}": vector for name, vector in self.vectors.items()}
        velocity = {f"velocity.{name}": vector for name, vector in self.velocity.items()}
        return vectors | velocity | {"order": self.order, "numbers": numbers}

    @staticmethod
    def from_tensors(tensors: Mapping[str, NDArray[Any]]) -> "LocalState":
        """Return the state that `tensors` was made from, in memory of its own."""

        def named(prefix: str) -> dict[str, Vector]:
            return {name.removeprefix(prefix): np.array(a) for name, a in tensors.items() if name.startswith(prefix)}

        cursor, step, loss_sum = tensors["numbers"].tolist()
        return LocalState(
            named("vector."), named("velocity."), np.array(tensors["order"]), int(cursor), int(step), loss_sum
        )


def begin(model: Model, recipe: PhaseConfig, shared: Vectors, private: Vectors) -> LocalState:
    """Return the state before the first local step.

    model: the network that is `trained`; private: what earlier rounds left on the device, or nothing.
    """
    method = learner(recipe.algorithm)
    fresh = {name: start(model) for name, start in method.private.items()}
    vectors = fresh | dict(private) | joined(shared)
    if keeps_head(recipe.algorithm):
        vectors = joined(vectors, OWN_HEAD)
    vectors |= {name: start(vectors) for name, start in method.begun.items()}
    return LocalState({name: vector.copy() for name, vector in vectors.items()}, {}, np.empty(0, np.int64))


def steps_in(recipe: PhaseConfig, samples: int) -> int:
    """Return how many local steps a round has for a participant with so many samples."""
    if recipe.local_epochs is None:
        return recipe.local_steps or 10
    batches = learner(recipe.algorithm).batches(recipe)
    whole, rest = divmod(samples, recipe.batch_size * batches)
    return recipe.local_epochs * max(whole + (rest >= batches), 1)  # a rest too short to be split: see _draw


def take_step(
    model: Model,
    recipe: PhaseConfig,
    state: LocalState,
    data: Samples,
    rng: np.random.Generator,
    workspace: Workspace,
) -> None:
    """Take one local step, changing `state`.

    model: the network that is `trained`; rng: the step's own generator, so that a step can be repeated after a power
    cut with the same draws.
    Raises DataError when there are fewer samples than the learner needs.
    """
    method = learner(recipe.algorithm)
    if data.size < (count := method.batches(recipe)):
        raise DataError(
            f"{data.size} training samples: this learner draws {count} batches a step; give it {count} samples or more"
        )
    if method.draw is not None:
        drawn = [method.draw(data.y, recipe.batch_size, rng)]
    else:
        drawn = _draw(state, data.size, recipe.batch_size, count, rng)
    batches = [data.take(indices) for indices in drawn]
    losses, directions = method.direct(model, state.vectors, batches, recipe, workspace)
    losses = [*losses]
    moves = method.moves(model, recipe, state.step, steps_in(recipe, data.size))
    for name, direction in directions.items():
        part = moves if name == "theta" else slice(None)
        if isinstance(direction, GradientAt):
            losses.append(_descend_at(model, state, name, direction, recipe, part, workspace))
        else:
            _descend(state, name, direction, recipe, part)
    state.step += 1
    state.loss_sum += float(np.mean(losses))


def _descend_at(
    model: Model, state: LocalState, name: str, at: GradientAt, recipe: PhaseConfig, part: slice, workspace: Workspace
) -> float:
    """Take the gradient, descend along it as `_descend` does, and return the loss there."""
    vector, (theta, (x, y)) = state.vectors[name], at
    if not recipe.momentum and not recipe.weight_decay and part == slice(None):
        return model.descend(theta, x, y, recipe.lr, workspace, start=vector, out=vector)[0]
    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    loss, _ = model.loss_and_grad(theta, x, y, workspace, gradient)
    _descend(state, name, gradient, recipe, part)
    return loss


def _descend(state: LocalState, name: str, direction: Vector, recipe: PhaseConfig, part: slice) -> None:
    """SGD with momentum and weight decay (Sutskever et al. 2013, in PyTorch's form), in place; overwrites direction.

    part: of the vector that takes the step; the rest stays as it is, and so does its velocity.
    """
    vector, direction = state.vectors[name][part], direction[part]
    if recipe.weight_decay:
        subtract_scaled(direction, vector, -recipe.weight_decay)
    if recipe.momentum:
        if name not in state.velocity:
            state.velocity[name] = np.zeros_like(state.vectors[name])
        velocity = state.velocity[name][part]
        velocity *= recipe.momentum
        velocity += direction
        direction = velocity
    subtract_scaled(vector, direction, recipe.lr)


def _draw(
    state: LocalState, count: int, batch_size: int, batches: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the indices of the step's disjoint batches: the next ones of a shuffled pass over the data.

    A pass ends with a short step, as an epoch ends with a short batch; what is too short to be split begins a new pass.
    """
    # Data that grew or shrank while the state lay in a file begins a new pass: the old order has other indices.
    if len(state.order) != count or count - state.cursor < batches:
        state.order, state.cursor = rng.permutation(count).astype(np.int64), 0
    chosen = state.order[state.cursor : state.cursor + batch_size * batches]
    state.cursor += len(chosen)
    return np.array_split(chosen, batches)
