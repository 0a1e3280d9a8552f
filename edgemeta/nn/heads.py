"""A network's last dense layer, its head, apart from the body below it."""

from edgemeta.errors import InputError
from edgemeta.nn.layers import Dense
from edgemeta.nn.model import Model

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


def with_head(model: Model, outputs: int) -> Model:
    """Return the network with a head of so many outputs, in the place of its own if it has one."""
    body = body_of(model)
    loss = "cross-entropy" if model.embeds else model.loss
    return Model([*body.layers, Dense(outputs)], body.input_shape, loss, model.normalization, model.name, model.threads)
