"""The learners: what one local step descends along.

A learner is a function

    direct(model, vectors, batches, recipe, workspace) -> (losses, directions)

`vectors` holds the participant's local copies: shared ones (they travel), private ones (they stay on the device), and
those of this round alone.
`directions` names what is to be subtracted, times the outer rate, from which of them: a vector, which whoever takes the
step may overwrite, or, for one of them at most, a gradient that is yet to be taken, `GradientAt`. `losses` are those of
the gradients that are taken already and count as the step's. `workspace` is memory that the next step uses again, as a
vector of the model's size is a tenth of what a small board has. The step itself is the same for all
(`edgemeta.meta.local`).
"Gradient" is said with care: the inner gradient adapts, the outer (meta-)gradient is what a learner returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import PhaseConfig
from edgemeta.errors import ConfigError
from edgemeta.meta.protonet import by_class, check_alive
from edgemeta.meta.rivals import HEAD, begin_head
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.nn.prototypes import leave_one_out
from edgemeta.records import NoSettings, nearest, number, record_from


class GradientAt(NamedTuple):
    """The gradient at theta on some samples, not taken yet: a plain step needs no vector for it."""

    theta: Vector
    samples: Samples


Vectors = Mapping[str, Vector]
Directions = Mapping[str, Vector | GradientAt]
Draw = Callable[[NDArray[np.int64], int, np.random.Generator], NDArray[np.int64]]
Direct = Callable[[Model, Vectors, Sequence[Samples], PhaseConfig, Workspace], tuple[Sequence[float], Directions]]


@dataclass(frozen=True)
class Learner:
    """direct: see above. batches: how many batches a step draws, disjoint. evaluations: gradients a step takes.

    shared, private: name -> its first value, for the vectors beside theta that travel, and that stay on the device.
    begun: name -> its value when a round begins, given the shared vectors as they came, for what ends with the round.
    settings: the record of what the learner is told beside the recipe of all (`settings_of`). draw: how a step's one
    batch is drawn, (labels, batch size, rng) -> indices; None: in passes over the data. embeds: whether it trains a
    network that ends in an embedding, and asks for no common class names.
    """

    direct: Direct
    batches: Callable[[PhaseConfig], int]
    evaluations: Callable[[PhaseConfig], int]
    paper: str
    private: Mapping[str, Callable[[Model], Vector]] = field(default_factory=dict)
    shared: Mapping[str, Callable[[Model], Vector]] = field(default_factory=dict)
    begun: Mapping[str, Callable[[Vectors], Vector]] = field(default_factory=dict)
    settings: type = NoSettings
    draw: Draw | None = None
    embeds: bool = False


def fedavg(
    _model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Plain local SGD: the gradient on one batch."""
    return [], {"theta": GradientAt(vectors["theta"], batches[0])}


def fomaml(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """First-order MAML: the query gradient, taken at the parameters that the support set adapted."""
    support, query = batches
    adapted, _ = descend(model, vectors["theta"], [support] * recipe.inner_steps, recipe.inner_lr, workspace)
    return [], {"theta": GradientAt(adapted, query)}


def reptile(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Reptile: towards where `inner_steps` steps on as many batches lead."""
    adapted, losses = descend(model, vectors["theta"], batches, recipe.inner_lr, workspace)
    return losses, {"theta": np.subtract(vectors["theta"], adapted, out=adapted)}


@dataclass(frozen=True)
class Prototypes:
    """scale: of squared distances, in units of the batch's spread; the larger, the more the nearest mean counts."""

    scale: float = number(5.0, 0, above=True)


def protonet(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Prototypical networks: each sample against its class's other samples' mean (`edgemeta.nn.prototypes`)."""
    theta, (batch,) = vectors["theta"], batches

    def loss(z: Vector, y: NDArray[np.int64]) -> tuple[float, Vector]:
        check_alive(z, batch)
        return leave_one_out(z, y, settings_of(recipe).scale)

    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    value, _ = model.loss_and_grad(theta, batch.x, batch.y, workspace, gradient, loss)
    return [value], {"theta": gradient}


def descend(
    model: Model, theta: Vector, batches: Sequence[Samples], lr: float, workspace: Workspace
) -> tuple[Vector, list[float]]:
    """Return parameters, one SGD step on each batch away from theta, in scratch memory; and each step's loss."""
    adapted, losses, here = workspace.part("learner").array("adapted", theta.shape, theta.dtype), [], theta
    for batch in batches:
        loss, here = model.descend(here, batch.x, batch.y, lr, workspace, out=adapted)
        losses.append(loss)
    return here, losses


LEARNERS: dict[str, Learner] = {
    "fedavg": Learner(fedavg, lambda _: 1, lambda _: 1, "McMahan et al. 2017, arXiv:1602.05629"),
    "fomaml": Learner(fomaml, lambda _: 2, lambda r: r.inner_steps + 1, "Finn et al. 2017, arXiv:1703.03400"),
    "reptile": Learner(
        reptile, lambda r: r.inner_steps, lambda r: r.inner_steps, "Nichol et al. 2018, arXiv:1803.02999"
    ),
    "protonet": Learner(
        protonet,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Snell et al. 2017, arXiv:1703.05175",
        settings=Prototypes,
        draw=by_class,
        embeds=True,
    ),
}


def learner(name: str) -> Learner:
    """Return a learner by name; raises ConfigError that lists the known ones."""
    if name not in LEARNERS:
        raise ConfigError(f"unknown algorithm '{name}': {nearest(name, list(LEARNERS))}")
    return LEARNERS[name]


def settings_of(recipe: PhaseConfig) -> Any:
    """Return a learner's own settings, as the record that its row names; raises ConfigError."""
    return record_from(learner(recipe.algorithm).settings, recipe.settings)


def trained(model: Model, algorithm: str) -> Model:
    """Return the network that a learner's steps are on: an embedding has its head on, unless the learner needs none."""
    return model.headed if model.headed and not learner(algorithm).embeds else model


def shared_of(model: Model, algorithm: str) -> dict[str, Callable[[Model], Vector]]:
    """Return name -> first value of the vectors that travel with a learner beside theta."""
    head = {HEAD: begin_head} if trained(model, algorithm) is not model else {}
    return {**learner(algorithm).shared, **head}


def sizes(model: Model, algorithm: str | None) -> dict[str, int]:
    """Return how many numbers each vector has that travels with a learner; theta alone where there is none."""
    beside = shared_of(model, algorithm) if algorithm else {}
    return {"theta": model.layout.size} | {name: start(model).size for name, start in beside.items()}
