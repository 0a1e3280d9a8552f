"""What a learner is: what one local step descends along.

A learner is a function

    direct(model, vectors, batches, recipe, workspace) -> (losses, directions)

`vectors` holds the participant's local copies: shared ones (they travel), private ones (they stay on the device), and
those of this round alone.
`directions` names what is to be subtracted, times the outer rate, from which of them: a vector, which whoever takes the
step may overwrite, or, for one of them at most, a gradient that is yet to be taken, `GradientAt`. `losses` are those of
the gradients that are taken already and count as the step's. `workspace` is memory that the next step uses again, as a
vector of the model's size is a tenth of what a small board has. The step itself is the same for all
(`edgemeta.meta.local`), and the table of learners is in `edgemeta.meta.learners`.
"Gradient" is said with care: the inner gradient adapts, the outer (meta-)gradient is what a learner returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import PhaseConfig
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.records import NoSettings


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
    With an own head (`edgemeta.meta.personal_heads`) among the private ones, theta travels without its head.
    begun: name -> its value when a round begins, given the shared vectors as they came, for what ends with the round.
    ended: (vectors, shared vectors as they came, recipe, steps) -> those that change when a round's steps are done.
    of_all: of the shared ones, those that are a mean over all participants, not over those of a round.
    settings: the record of what the learner is told beside the recipe of all. draw: how a step's one batch is drawn,
    (labels, batch size, rng) -> indices; None: in passes over the data. embeds: whether it trains a network that ends
    in an embedding, and asks for no common class names. apart: whether it treats a network's last layer in its own way.
    moves: (model, recipe, how many of a round's steps are taken, of how many) -> the part of theta that a step moves.
    vectors: how many of the model's size a step works with, beside theta as it came and the local copy.
    unsound: says what of a recipe does not go with it, why, and what to give instead, or "".
    """

    direct: Direct
    batches: Callable[[PhaseConfig], int]
    evaluations: Callable[[PhaseConfig], int]
    paper: str
    private: Mapping[str, Callable[[Model], Vector]] = field(default_factory=dict)
    shared: Mapping[str, Callable[[Model], Vector]] = field(default_factory=dict)
    begun: Mapping[str, Callable[[Vectors], Vector]] = field(default_factory=dict)
    ended: Callable[[Vectors, Vectors, PhaseConfig, int], Mapping[str, Vector]] = lambda *_: {}
    of_all: tuple[str, ...] = ()
    settings: type = NoSettings
    draw: Draw | None = None
    embeds: bool = False
    apart: bool = False
    moves: Callable[[Model, PhaseConfig, int, int], slice] = lambda *_: slice(None)
    vectors: int = 0
    unsound: Callable[[PhaseConfig], str] = lambda _: ""


def descend(
    model: Model, theta: Vector, batches: Sequence[Samples], lr: float, workspace: Workspace
) -> tuple[Vector, list[float]]:
    """Return parameters, one SGD step on each batch away from theta, in scratch memory; and each step's loss."""
    adapted, losses, here = workspace.part("learner").array("adapted", theta.shape, theta.dtype), [], theta
    for batch in batches:
        loss, here = model.descend(here, batch.x, batch.y, lr, workspace, out=adapted)
        losses.append(loss)
    return here, losses
