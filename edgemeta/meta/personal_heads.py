"""Learners that treat a network's head, its last layer, and the body below it in different ways."""

from collections.abc import Sequence

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Workspace
from edgemeta.nn.heads import head_start


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
