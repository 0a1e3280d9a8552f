"""Relatives of MAML: an inner loop on the head alone, and one whose curvature counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, GradientAt, Vectors, descend
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Workspace
from edgemeta.nn.heads import head_start
from edgemeta.records import number, record_from


def anil(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """ANIL, first order: the query gradient of all parameters, where the support set adapted the head alone."""
    theta, (support, query), below = vectors["theta"], batches, head_start(model)
    adapted, here = workspace.part("learner").array("adapted", theta.shape, theta.dtype), theta
    for _ in range(recipe.inner_steps):
        model.descend(here, support.x, support.y, recipe.inner_lr, workspace, out=adapted)
        adapted[:below] = theta[:below]
        here = adapted
    return [], {"theta": GradientAt(adapted, query)}


@dataclass(frozen=True)
class FiniteDifference:
    """delta: how far from theta, both ways along the query gradient, curvature is looked for; a Euclidean length."""

    delta: float = number(0.01, 0, above=True)


def one_step_only(recipe: PhaseConfig) -> str:
    """Say that the curvature is of one inner step."""
    if recipe.inner_steps == 1:
        return ""
    return f"inner_steps is {recipe.inner_steps}, and its second-order term is that of one step: give 1, or take fomaml"


def perfedavg_hf(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Per-FedAvg, Hessian-free: (I - inner_lr H) g for the query gradient g; H g by a difference of two gradients.

    They are taken on a third batch, `delta` away from theta along g and against it.
    """
    theta, (support, query, third) = vectors["theta"], batches
    moved, _ = descend(model, theta, [support], recipe.inner_lr, workspace)
    memory = workspace.part("learner")
    gradient, result = (memory.array(key, theta.shape, theta.dtype) for key in ("gradient", "result"))
    loss, _ = model.loss_and_grad(moved, query.x, query.y, workspace, gradient)
    length = math.sqrt(float(np.square(gradient, out=result).sum(dtype=np.float64)))
    share = record_from(FiniteDifference, recipe.settings).delta / (length or 1.0)
    start = gradient
    for sign in (1, -1):
        np.multiply(gradient, theta.dtype.type(sign * share), out=moved)
        moved += theta
        rate = sign * recipe.inner_lr / (2 * share)
        model.descend(moved, third.x, third.y, rate, workspace, start=start, out=result)
        start = result
    return [loss], {"theta": result}
