"""Learners that treat a network's head, its last layer, and the body below it in different ways."""

from collections.abc import Sequence

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, GradientAt, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.nn.heads import body_size, head_start, headed

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


def no_decay(recipe: PhaseConfig) -> str:
    """Say that weight decay would change a head that is to stay as it is."""
    if not recipe.weight_decay:
        return ""
    return f"weight_decay is {recipe.weight_decay:g}, which would shrink a head that is to stay as it is: give 0"


def fedbabu(
    model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """FedBABU: the gradient of the body on one batch; the head stays as it began, until the model is adapted."""
    theta, (batch,) = vectors["theta"], batches
    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    loss, _ = model.loss_and_grad(theta, batch.x, batch.y, workspace, gradient)
    gradient[head_start(model) :] = 0
    return [loss], {"theta": gradient}
