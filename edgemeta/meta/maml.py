"""Relatives of MAML: an inner loop on the head alone, one whose curvature counts, and one whose rates are learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.meta.learner import Directions, GradientAt, Vectors, descend
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
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


RATES = "rates"  # the vector that travels beside theta: of each parameter, in units of inner_lr


def begin_rates(model: Model) -> Vector:
    """Return the first rates, all inner_lr; of an embedding, they are of the network with its head."""
    return np.ones((model.headed or model).layout.size, np.float32)


def one_plain_step(recipe: PhaseConfig) -> str:
    """Say that the gradient of the rates is of one inner step, and what weight decay would do to them."""
    if recipe.weight_decay:
        return f"weight_decay is {recipe.weight_decay:g}, which would shrink the learned rates too: give 0"
    if recipe.inner_steps == 1:
        return ""
    return f"inner_steps is {recipe.inner_steps}, and its rates learn from one step: give 1, or take fomaml"


def meta_sgd(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Meta-SGD, first order: one inner step at a learned rate for each parameter, and the query gradient of both.

    With a = inner_lr rates, the support gradient s and the query gradient q at theta - a s, the gradient of a is -s q.
    As rates are in units of inner_lr, theirs is that over inner_lr: so a itself takes a step of the outer rate.
    """
    theta, (support, query) = vectors["theta"], batches
    memory, inner_lr = workspace.part("learner"), theta.dtype.type(recipe.inner_lr)
    first, adapted, outer = (memory.array(key, theta.shape, theta.dtype) for key in ("first", "adapted", "outer"))
    model.loss_and_grad(theta, support.x, support.y, workspace, first)
    np.multiply(first, vectors[RATES], out=adapted)
    adapted *= -inner_lr
    adapted += theta
    loss, _ = model.loss_and_grad(adapted, query.x, query.y, workspace, outer)
    first *= outer
    first /= -inner_lr
    return [loss], {"theta": outer, RATES: first}


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
