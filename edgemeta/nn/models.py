"""The models that have a name."""

import math
from collections.abc import Callable, Sequence

from edgemeta.errors import InputError
from edgemeta.nn.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d, ReLU
from edgemeta.nn.model import RAW, Model, Normalization


def cnn(outputs: int) -> list[Layer]:
    """Two 5x5 convolutions and a dense layer of 512: the reference experiment's network."""
    return [
        *(Conv2d(32, 5), ReLU(), MaxPool2d(2)),
        *(Conv2d(64, 5), ReLU(), MaxPool2d(2)),
        *(Flatten(), Dense(512), ReLU(), Dense(outputs)),
    ]


def cnn_small(outputs: int) -> list[Layer]:
    """Two 3x3 convolutions and a dense layer of 128: an eighth of the parameters, for small boards."""
    return [
        *(Conv2d(16, 3), ReLU(), MaxPool2d(2)),
        *(Conv2d(32, 3), ReLU(), MaxPool2d(2)),
        *(Flatten(), Dense(128), ReLU(), Dense(outputs)),
    ]


def conv4(outputs: int) -> list[Layer]:
    """Four 3x3 convolutions of 32: the usual network of few-shot learning, without its batch normalisation."""
    return [*(Conv2d(32, 3), ReLU(), MaxPool2d(2)) * 4, Flatten(), Dense(outputs)]


def mlp(outputs: int) -> list[Layer]:
    """Two hidden layers of 200: for sensor readings, and for regression with the loss "mse"."""
    return [Flatten(), Dense(200), ReLU(), Dense(200), ReLU(), Dense(outputs)]


MODELS: dict[str, Callable[[int], list[Layer]]] = {"cnn": cnn, "cnn-small": cnn_small, "conv4": conv4, "mlp": mlp}


def layers_of(name: str, classes: int) -> list[Layer]:
    """Return a named model's layers; with no classes they end in the embedding that its last dense layer works on.

    A ReLU before that layer is left out too: distances between embeddings want both signs.
    """
    if classes:
        return MODELS[name](classes)
    layers = MODELS[name](1)[:-1]
    return layers[:-1] if isinstance(layers[-1], ReLU) else layers


def build(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    loss: str = "cross-entropy",
    normalization: Normalization = RAW,
    threads: int = 1,
) -> Model:
    """Return a named model for samples of `input_shape` and `classes` outputs; 0: it ends in its embedding.

    threads: see `Model`. Raises InputError for unknown names, and for samples that the model cannot take.
    """
    if name not in MODELS:
        raise InputError(f"unknown model '{name}': expected one of {', '.join(MODELS)}")
    layers, shape = layers_of(name, classes), tuple(input_shape)
    least = math.prod(layer.size for layer in layers if isinstance(layer, MaxPool2d))
    if least > 1 and (len(shape) != 3 or min(shape[:2]) < least):
        raise InputError(
            f"{name} takes pictures (height, width, channels) of {least}x{least} or more, and the input shape is "
            f"{shape}: give larger pictures, or take another model (mlp takes samples of any shape)"
        )
    return Model(layers, shape, loss, normalization, name, threads)
