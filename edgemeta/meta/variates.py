"""SCAFFOLD: local steps corrected for where a participant's own data pulls (Karimireddy et al. 2020, arXiv:1910.06378).

The control variates are gradients: `variate`, the mean over all participants, travels with theta, and `own_variate`
stays on the device. Both are updated when a round's steps are done, by the paper's option II.
"""

from collections.abc import Sequence

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace, subtract_scaled

VARIATE, OWN_VARIATE = "variate", "own_variate"


def begin_variate(model: Model) -> Vector:
    """Return a control variate's first value; of an embedding, it is of the network with its head."""
    return np.zeros((model.headed or model).layout.size, np.float32)


def no_momentum(recipe: PhaseConfig) -> str:
    """Say that momentum makes steps longer than the gradients that option II takes them for."""
    if not recipe.momentum:
        return ""
    said = (
        "a control variate is the way that a round went over steps times lr, which momentum makes several times longer"
    )
    return f"momentum is {recipe.momentum:g}, and {said}: give 0"


def scaffold(
    model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """SCAFFOLD: the gradient on one batch, less what is usual of it here, plus what is usual of it everywhere."""
    theta, (batch,) = vectors["theta"], batches
    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    loss, _ = model.loss_and_grad(theta, batch.x, batch.y, workspace, gradient)
    subtract_scaled(gradient, vectors[OWN_VARIATE], 1)
    subtract_scaled(gradient, vectors[VARIATE], -1)
    return [loss], {"theta": gradient}


def end_scaffold(vectors: Vectors, start: Vectors, recipe: PhaseConfig, steps: int) -> dict[str, Vector]:
    """Return the variates after a round: c_k - c + (start - theta) / (steps lr) is the own one; c moves by as much."""
    moved = (start["theta"] - vectors["theta"]) / vectors["theta"].dtype.type(steps * recipe.lr)
    return {VARIATE: moved, OWN_VARIATE: vectors[OWN_VARIATE] - start[VARIATE] + moved}
