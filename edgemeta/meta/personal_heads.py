"""Learners that treat a network's head, its last layer, and the body below it in different ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, GradientAt, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.nn.heads import body_size, head_start, headed
from edgemeta.records import number, record_from

OWN_HEAD = "own_head"  # the vector that stays on the device, where theta travels without a head


def begin_own_head(model: Model) -> Vector:
    """Return a participant's first head: initialised as in a whole network, the same for all that have as many classes.

    model: the network with its head.
    """
    return model.init(0)[head_start(model) :]


def with_own_head(model: Model, theta: Vector, head: Vector) -> tuple[Model, Vector]:
    """Return a participant's personalised model: the body, which all share, below its own head.

    model: of the run, which may be an embedding; theta: of that, or of its body alone.
    """
    whole = np.concatenate([theta[: body_size(model)], head])
    return (headed(model, head.size // (model.outputs + 1)) if model.embeds else model), whole


def rows_of(head: Vector, had: Sequence[str], classes: Sequence[str]) -> Vector:
    """Return a head of some classes made one of others: those that it had keep their rows, new ones begin at zero."""
    weight, bias = head[: -len(had)].reshape(-1, len(had)), head[-len(had) :]
    places = {name: k for k, name in enumerate(had)}
    known = [(k, places[name]) for k, name in enumerate(classes) if name in places]
    new, old = [k for k, _ in known], [k for _, k in known]
    made = np.zeros((len(weight) + 1, len(classes)), head.dtype)
    made[:-1, new], made[-1, new] = weight[:, old], bias[old]
    return made.ravel()


def fedper(
    _model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """FedPer: the gradient on one batch, of the body, which travels, and of the head, which stays on the device."""
    return [], {"theta": GradientAt(vectors["theta"], batches[0])}


def fedbabu(
    _model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """FedBABU: the gradient of the body on one batch; the head stays as it began, until the model is adapted."""
    return [], {"theta": GradientAt(vectors["theta"], batches[0])}


def body_only(model: Model, _recipe: PhaseConfig, _step: int, _steps: int) -> slice:
    """Return where the body lies."""
    return slice(0, head_start(model))


@dataclass(frozen=True)
class HeadFirst:
    """head: the share of a round's steps that are the head's, and come first; the paper's are .67 and .91 (10 epochs of
    the head, then 5 or 1 of the body).
    """

    head: float = number(0.5, 0, 1, above=True)


def fedrep(
    _model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """FedRep: the gradient on one batch, of the head alone in a round's first steps, of the body in the others."""
    return [], {"theta": GradientAt(vectors["theta"], batches[0])}


def head_first(model: Model, recipe: PhaseConfig, step: int, steps: int) -> slice:
    """Return where the head lies, and, after its share of the round's steps, where the body does; each has one step."""
    below, share = head_start(model), record_from(HeadFirst, recipe.settings).head
    return slice(below, None) if step < min(max(round(share * steps), 1), steps - 1) else slice(0, below)


def two_steps(recipe: PhaseConfig) -> str:
    """Say that one step cannot be both the head's and the body's."""
    if recipe.local_steps != 1:
        return ""
    return "local_steps is 1, and a round has steps of the head and others of the body: give 2 or more, or take fedper"
