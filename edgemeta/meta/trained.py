"""A model file in use: predict, adapt, save."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import PRESETS
from edgemeta.errors import DataError, DivergedError, InputError, ModelFileError
from edgemeta.meta.adaptations import Own, Steps, adaptation_of, check_reject
from edgemeta.meta.evaluation import LOSS_CEILING, SCORE_BATCH, outputs_of, score
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, softmax
from edgemeta.nn.files import load_parameters, save_model
from edgemeta.nn.given import positions, read_labels, refuse_numbers, samples_of, targets_of
from edgemeta.nn.heads import body_of
from edgemeta.nn.prototypes import centres_of, distances
from edgemeta.reading import followed

START = "start"  # the model that ships, wherever a model file is asked for
SHIPPED = PRESETS / f"{START}.safetensors"  # beside the preset that it was made with
HIGHEST_LR = 1e38  # beyond it is what float32 cannot hold


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with its parameters and the names of its classes: none, where it ends in an embedding.

    scale, reject: of the prototypes that made its last layer (`edgemeta.meta.adaptations.Own`).
    """

    network: Model
    theta: Vector
    classes: tuple[str, ...]
    round: int = 0
    scale: float | None = None
    reject: float | None = None

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (B, classes), or the outputs (B, outputs) of a regression network.

        images: (B, H, W, C), whole numbers from 0 to 255 or floats from 0 to 1 (any finite numbers, where the model
        takes no pictures), see `edgemeta.nn.given.samples_of`; one image without the batch's axis is taken as a batch
        of one. Raises DataError for other values and for another shape, and where the model has no classes yet.
        """
        if self.network.embeds:
            raise DataError(
                "this model has no classes of its own: adapt it first to samples of some, "
                "with 'edgemeta adapt MODEL --data FOLDER --out MODEL2', or .adapt(images, labels)"
            )
        batch = samples_of(images, self.network.input_shape, "images")
        outputs = outputs_of(self.network, self.theta, batch)
        return softmax(outputs) if self.network.classifies else outputs

    def unlike(self, images: NDArray[Any]) -> NDArray[np.bool_]:
        """Return for each image (B,) whether it is like none of the classes; never so, where no rate was asked for.

        It is farther from the nearest class than all but a share of the model's own samples were: `reject` of `adapt`,
        `evaluation.reject` of a run. Takes images and raises as `predict` does.
        """
        batch = samples_of(images, self.network.input_shape, "images")
        if self.scale is None or self.reject is None:
            return np.zeros(len(batch), np.bool_)
        weight = self.network.layout.views(self.theta)[self.network.layout.entries[-2][0]]
        body = body_of(self.network)
        z = outputs_of(body, self.theta[: body.layout.size], batch)
        nearest: Vector = distances(z, centres_of(weight, self.scale)).min(axis=1)
        return nearest > self.reject

    def adapt(
        self,
        images: NDArray[Any],
        labels: Sequence[str] | NDArray[Any],
        steps: int | None = None,
        *,
        adaptation: str | None = None,
        lr: float = 0.05,
        batch_size: int = 32,
        seed: int = 0,
        reject: float = 0.0,
    ) -> "TrainedModel":
        """Return a model of one's own, made from one's own samples.

        adaptation: how, one of `edgemeta.meta.ADAPTATIONS`: "sgd", or, for a model without classes, which takes those
        that the labels name, "prototypes", unless given. steps: of SGD; 5 for "sgd" and "head" and none for the others,
        unless given. reject: the share of samples like these that `unlike` may be wrong about, for "prototypes" without
        steps; of n samples it is 1 / (n + 1) at least. 0: it calls nothing unlike.
        images: as `predict` takes them; labels: for each a class name or an index into `classes`, as (B,), (B, 1) or
        one-hot rows, or a regression network's finite targets. Raises DataError for a label that the model does not
        know, and when images and labels are not as many; ConfigError for an adaptation that is none, or has no
        prototypes for `reject`, InputError for
        settings that are no steps of SGD, and DivergedError when what they lead to is not finite.
        """
        row = adaptation_of(adaptation, self.network)
        steps = row.steps if steps is None else steps
        _check_settings(steps, lr, batch_size, seed)
        if not 0 <= reject <= 0.5:
            raise InputError(f"reject is {reject!r}: expected a share from 0 to 0.5")
        check_reject(reject, adaptation, steps, self.network)
        if steps and row.stepless:
            raise InputError(f"steps is {steps}: adaptation '{adaptation}' takes none")
        x = samples_of(images, self.network.input_shape, "images")
        classifies, names = self.network.classifies, self.classes
        if self.network.embeds:
            names, y = _own_names(labels)
        else:
            y = self._positions(labels) if classifies else targets_of(labels, "labels")
        if len(x) != len(y) or not len(x):
            raise DataError(f"{len(x)} images with {len(y)} labels: expected as many labels, and one or more")
        support, rng = Samples(x, y), np.random.default_rng(seed)
        own = row.adapt(self.network, self.theta, support, Steps(steps, lr, batch_size, reject=reject), rng)
        scored = score(own.model, own.theta, support.take(slice(SCORE_BATCH)), own.classes)["loss"]
        if not np.isfinite(own.theta).all() or (scored >= LOSS_CEILING and own.model.classifies):
            raise DivergedError(f"adaptation diverged after {steps} steps: lower lr ({lr:g})")
        return owned(own, names, self.round)

    def save(self, path: str | Path) -> None:
        """Write the model file, atomically; raises DivergedError, and writes nothing, for what is not finite."""
        save_model(Path(path), self.network, self.theta, self.classes, self.round, scale=self.scale, reject=self.reject)

    def _positions(self, labels: Any) -> NDArray[np.int64]:
        given = read_labels(labels, "labels")
        refuse_numbers(given, self.classes)
        return positions(given, self.classes)


def owned(own: Own, names: Sequence[str], round_number: int) -> TrainedModel:
    """Return a participant's own model with its classes' names. names: those of the labels that it was adapted on."""
    classes = tuple(names) if own.classes is None else tuple(names[k] for k in own.classes.tolist())
    return TrainedModel(own.model, own.theta, classes, round_number, own.scale, own.reject)


def scores_of(model: TrainedModel, test: Samples, names: Sequence[str]) -> dict[str, float] | None:
    """Return the scores of a model on samples that are labelled by position in `names`; None before it has classes.

    A sample of a class that the model does not have counts as wrong.
    """
    if model.network.embeds:
        return None
    if tuple(names) == model.classes:
        return score(model.network, model.theta, test)
    places = np.array([names.index(name) for name in model.classes], np.int64)
    return score(model.network, model.theta, test, places)


def _own_names(labels: Any) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the labels' own names, in order, and each label's place among them; numbers are names, too."""
    values = read_labels(labels, "labels").values
    found, places = np.unique(values, return_inverse=True)
    return tuple(map(str, found.tolist())), places.reshape(-1).astype(np.int64)


def _check_settings(steps: int, lr: float, batch_size: int, seed: int) -> None:
    for name, number, least in (("steps", steps, 0), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < least:
            raise InputError(f"{name} is {number!r}: expected a whole number from {least}")
    real = isinstance(lr, int | float | np.integer | np.floating) and not isinstance(lr, bool)
    if not real or not 0 < lr < HIGHEST_LR:  # not, so that NaN is refused
        raise InputError(f"lr is {lr!r}: expected a finite number above 0")


def load_model(path: str | Path, threads: int = 1) -> TrainedModel:
    """Return the model in a file; raises ModelFileError that says what is wrong with it, StorageError when it cannot be
    read.

    path: a file, or "start" for the embedding that ships; a file of that name in the working directory goes before it.
    threads: how many share the model's work; any number gives the same bits.
    """
    if not isinstance(path, str | os.PathLike):
        raise ModelFileError(f"a model file is named by its path, and not by {path!r}")
    file = Path(path)
    if file == Path(START) and not file.is_file():
        file = SHIPPED
    kept = load_parameters(followed(file))
    kept.model.threads = threads
    return TrainedModel(*kept)
