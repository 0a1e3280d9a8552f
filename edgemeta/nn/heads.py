"""A network's last dense layer, its head, apart from the body below it."""

import math

import numpy as np

from edgemeta.errors import InputError
from edgemeta.nn.layers import Dense
from edgemeta.nn.layout import Vector
from edgemeta.nn.model import Model
from edgemeta.nn.models import MODELS, build, layers_of

EMBEDS = "prototypes"  # the loss of a network that ends in an embedding


def body_of(model: Model) -> Model:
    """Return the network below the head, of which an embedding has none; raises InputError where there is no head.

    Its parameters are the first of the model's.
    """
    if model.embeds:
        return model
    if len(model.layers) < 2 or not isinstance(model.layers[-1], Dense):
        raise InputError(f"{model.name} has no dense layer last, above others: this adaptation works on that layer")
    return Model(model.layers[:-1], model.input_shape, EMBEDS, model.normalization, model.name, model.threads)


def head_start(model: Model) -> int:
    """Return how many of the parameters lie below the head; raises InputError where there is no head."""
    if not isinstance(model.layers[-1], Dense):
        raise InputError(f"{model.name} has no dense layer last: this learner treats that layer in its own way")
    return model.layout.size - sum(math.prod(shape) for _, shape in model.layout.entries[-2:])


def body_size(model: Model) -> int:
    """Return how many of the parameters are the body's: an embedding's are all."""
    return model.layout.size if model.embeds else head_start(model)


def with_head(model: Model, outputs: int) -> Model:
    """Return the network with a head of so many outputs, in the place of its own if it has one."""
    body = body_of(model)
    loss = "cross-entropy" if model.embeds else model.loss
    return Model([*body.layers, Dense(outputs)], body.input_shape, loss, model.normalization, model.name, model.threads)


def headed(model: Model, classes: int) -> Model:
    """Return the network that an embedding is without its head, of so many classes.

    With a named model, also the ReLU is there that its embedding leaves out.
    """
    if model.name in MODELS and tuple(layers_of(model.name, 0)) == model.layers:
        return build(model.name, model.input_shape, classes, normalization=model.normalization, threads=model.threads)
    return with_head(model, classes)


def give_head(model: Model, classes: int) -> None:
    """Give an embedding `headed`, for so many classes: those of a head that travels."""
    model.headed = headed(model, classes)


def first_outputs(model: Model, theta: Vector, count: int) -> tuple[Model, Vector]:
    """Return a network and its parameters with the first so many of its outputs."""
    weight, bias = (model.layout.views(theta)[name] for name, _ in model.layout.entries[-2:])
    below = body_of(model).layout.size
    return with_head(model, count), np.concatenate([theta[:below], weight[:, :count].ravel(), bias[:count]])
