"""Prototypical networks: the step, its batches, and the sign that one has died."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import PhaseConfig
from edgemeta.errors import DivergedError
from edgemeta.meta.learner import Directions, Vectors
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.nn.prototypes import leave_one_out
from edgemeta.records import number, record_from

Labels = NDArray[np.int64]

SAMPLES = 4  # of each class in a batch, at least: three to make its mean of, when the fourth is left out
ALIKE = 1e-6  # of the largest number: embeddings that differ by no more are the same, but for rounding


@dataclass(frozen=True)
class Prototypes:
    """scale: of squared distances, in units of the batch's spread; the larger, the more the nearest mean counts."""

    scale: float = number(5.0, 0, above=True)


def protonet(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Prototypical networks: each sample against its class's other samples' mean (`edgemeta.nn.prototypes`)."""
    theta, (batch,) = vectors["theta"], batches
    scale = record_from(Prototypes, recipe.settings).scale

    def loss(z: Vector, y: NDArray[np.int64]) -> tuple[float, Vector]:
        check_alive(z, batch)
        return leave_one_out(z, y, scale)

    gradient = workspace.part("learner").array("gradient", theta.shape, theta.dtype)
    value, _ = model.loss_and_grad(theta, batch.x, batch.y, workspace, gradient, loss)
    return [value], {"theta": gradient}


def by_class(y: Labels, batch_size: int, rng: np.random.Generator) -> Labels:
    """Return the indices of a batch that has enough of each of its classes.

    y: (N,) int64. As many classes as have room for four samples each, and two at least, are drawn, then their samples,
    equally many of each; a class with fewer gives all that it has. So of 50 classes, a batch of 64 has 16.
    """
    classes = np.unique(y)
    ways = min(len(classes), max(2, batch_size // SAMPLES))
    drawn = rng.permutation(classes)[:ways].tolist()
    counts = [(batch_size + i) // ways for i in range(ways)]  # the batch in parts, as equal as can be
    chosen = [rng.permutation(np.flatnonzero(y == k))[:count] for k, count in zip(drawn, counts, strict=True)]
    return np.concatenate(chosen).astype(np.int64)


def check_alive(z: Vector, batch: Samples) -> None:
    """Raise DivergedError when a network makes the same of samples that differ: no gradient will ever bring it back.

    z: (B, E) their embeddings.
    """
    same = np.abs(z - z[0]).max() <= ALIKE * np.abs(z).max()
    if same and (batch.x != batch.x[0]).any():
        raise DivergedError("training has died: the network makes the same of all samples; lower lr")
