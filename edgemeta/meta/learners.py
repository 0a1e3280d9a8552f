"""The learners: what one local step descends along.

A learner is a function

    gradient(grad, vectors, batches, recipe, scratch) -> (loss, directions)

`grad(theta, samples)` is the network's loss and gradient on some samples, until its next call, which may overwrite that
gradient; `vectors` holds the participant's local copies, shared ones (they travel) and private ones (they stay on the
device); `directions` names what is to be subtracted, times the outer rate, from which of them, and may be overwritten
by who does so; `scratch` is memory that the next step uses again, as a vector of the model's size is a tenth of what a
small board has. The step itself is the same for all (`edgemeta.meta.local`).
"Gradient" is said with care: the inner gradient adapts, the outer (meta-)gradient is what a learner returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgemeta.config import PhaseConfig, nearest
from edgemeta.errors import ConfigError
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace, subtract_scaled

Vectors = Mapping[str, Vector]
Grad = Callable[[Vector, Samples], tuple[float, Vector]]
Gradient = Callable[[Grad, Vectors, Sequence[Samples], PhaseConfig, Workspace], tuple[float, Vectors]]


@dataclass(frozen=True)
class Learner:
    """gradient: see above. batches: how many batches a step draws, disjoint. evaluations: gradients a step takes.

    private: name -> its first value, for the vectors that stay on the device.
    """

    gradient: Gradient
    batches: Callable[[PhaseConfig], int]
    evaluations: Callable[[PhaseConfig], int]
    paper: str
    private: Mapping[str, Callable[[Model], Vector]] = field(default_factory=dict)


def fedavg(
    grad: Grad, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _scratch: Workspace
) -> tuple[float, Vectors]:
    """Plain local SGD: the gradient on one batch."""
    loss, gradient = grad(vectors["theta"], batches[0])
    return loss, {"theta": gradient}


def fomaml(
    grad: Grad, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, scratch: Workspace
) -> tuple[float, Vectors]:
    """First-order MAML: the query gradient, taken at the parameters that the support set adapted."""
    support, query = batches
    adapted, _ = descend(grad, vectors["theta"], [support] * recipe.inner_steps, recipe.inner_lr, scratch)
    loss, meta_gradient = grad(adapted, query)
    return loss, {"theta": meta_gradient}


def reptile(
    grad: Grad, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, scratch: Workspace
) -> tuple[float, Vectors]:
    """Reptile: towards where `inner_steps` steps on as many batches lead."""
    adapted, losses = descend(grad, vectors["theta"], batches, recipe.inner_lr, scratch)
    return float(np.mean(losses)), {"theta": np.subtract(vectors["theta"], adapted, out=adapted)}


def descend(
    grad: Grad, theta: Vector, batches: Sequence[Samples], lr: float, scratch: Workspace
) -> tuple[Vector, list[float]]:
    """Return parameters, one SGD step on each batch away from theta, in scratch memory; and each step's loss."""
    adapted, losses = scratch.array("adapted", theta.shape, theta.dtype), []
    adapted[...] = theta
    for batch in batches:
        loss, gradient = grad(adapted, batch)
        subtract_scaled(adapted, gradient, lr)
        losses.append(loss)
    return adapted, losses


LEARNERS: dict[str, Learner] = {
    "fedavg": Learner(fedavg, lambda _: 1, lambda _: 1, "McMahan et al. 2017, arXiv:1602.05629"),
    "fomaml": Learner(fomaml, lambda _: 2, lambda r: r.inner_steps + 1, "Finn et al. 2017, arXiv:1703.03400"),
    "reptile": Learner(
        reptile, lambda r: r.inner_steps, lambda r: r.inner_steps, "Nichol et al. 2018, arXiv:1803.02999"
    ),
}


def learner(name: str) -> Learner:
    """Return a learner by name; raises ConfigError that lists the known ones."""
    if name not in LEARNERS:
        raise ConfigError(f"unknown algorithm '{name}': {nearest(name, list(LEARNERS))}")
    return LEARNERS[name]
