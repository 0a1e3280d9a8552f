"""FedProx: local steps that are held to where the round began (Li et al. 2020, arXiv:1812.06127)."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace, subtract_scaled
from edgemeta.records import number, record_from


@dataclass(frozen=True)
class Proximal:
    """mu: how strongly parameters are held to where the round began; the paper chooses among 0.001 to 1."""

    mu: float = number(0.1, 0)


def begin_start(shared: Vectors) -> Vector:
    """Return what a round begins with."""
    return shared["theta"]


def fedprox(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """FedProx: the gradient of loss + mu/2 |theta - start|² on one batch, where start is what the round began with."""
    theta, (batch,), mu = vectors["theta"], batches, record_from(Proximal, recipe.settings).mu
    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    loss, _ = model.loss_and_grad(theta, batch.x, batch.y, workspace, gradient)
    subtract_scaled(gradient, theta, -mu)
    subtract_scaled(gradient, vectors["start"], mu)
    return [loss], {"theta": gradient}
