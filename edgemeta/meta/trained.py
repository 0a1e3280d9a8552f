"""A model file in use: predict, adapt, save."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError
from edgemeta.meta.evaluation import SCORE_BATCH, adapt
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, softmax
from edgemeta.nn.files import load_parameters, save_model


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with its parameters and the names of its classes."""

    network: Model
    theta: Vector
    classes: tuple[str, ...]
    round: int = 0

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (B, classes), or the outputs (B, outputs) of a regression network.

        images: (B, H, W, C), uint8 or float in [0, 1] (what the model was trained on, where that was no pictures);
        one image without the batch's axis is taken as a batch of one. Raises InputError for another shape.
        """
        images = np.asarray(images)
        batch = images[np.newaxis] if images.ndim == len(self.network.input_shape) else images
        outputs = np.concatenate(
            [
                self.network.forward(self.theta, batch[start : start + SCORE_BATCH])
                for start in range(0, max(len(batch), 1), SCORE_BATCH)
            ]
        )
        return softmax(outputs) if self.network.classifies else outputs

    def adapt(
        self,
        images: NDArray[Any],
        labels: Sequence[str] | NDArray[Any],
        steps: int = 5,
        *,
        lr: float = 0.05,
        batch_size: int = 32,
        seed: int = 0,
    ) -> "TrainedModel":
        """Return a model that took a few SGD steps on one's own samples.

        images: (B, H, W, C); labels: (B,) class names or indices into `classes`, or a regression network's targets.
        Raises DataError for a label that the model does not know, and when images and labels are not as many.
        """
        x, y = np.asarray(images), np.asarray(labels)
        if len(x) != len(y) or not len(x):
            raise DataError(f"{len(x)} images with {len(y)} labels: expected as many labels, and one or more")
        support = Samples(x, self._indices(y) if self.network.classifies else y)
        rng = np.random.default_rng(seed)
        theta = adapt(self.network, self.theta, support, steps=steps, lr=lr, batch_size=batch_size, rng=rng)
        return replace(self, theta=theta)

    def save(self, path: str | Path) -> None:
        """Write the model file, atomically."""
        save_model(Path(path), self.network, self.theta, self.classes, self.round)

    def _indices(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        given = labels.tolist()
        by_index = labels.dtype.kind in "iu"
        unknown = sorted(set(given) - set(range(len(self.classes)) if by_index else self.classes))
        if unknown:
            raise DataError(
                f"the model does not know {', '.join(map(str, unknown))}: its classes are {', '.join(self.classes)}"
            )
        return np.array(given if by_index else [self.classes.index(label) for label in given], np.int64)


def load_model(path: str | Path, threads: int = 1) -> TrainedModel:
    """Return the model in a file; raises ModelFileError that says what is wrong with it.

    threads: how many share the model's work; any number gives the same bits.
    """
    network, theta, classes, round_number = load_parameters(Path(path))
    network.threads = threads
    return TrainedModel(network, theta, classes, round_number)
