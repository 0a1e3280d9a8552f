"""Losses: each returns the batch's mean loss and its gradient with respect to the network's output.

Adding one is a function and its row in `LOSSES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn.prototypes import leave_one_out

Array = NDArray[Any]
LossFunction = Callable[[Array, Array], tuple[float, Array]]


def softmax(logits: Array) -> Array:
    """Return probabilities (B, classes) that sum to one; shifting by the largest logit keeps exp finite."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Softmax cross-entropy: -mean log p[label].

    logits: (B, classes) float; labels: (B,) integers. Returns the loss and dlogits: (B, classes).
    Raises InputError for labels of another shape or kind, or that the network does not know: as an index into the
    logits, -1 would silently mean the last class.
    """
    if labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}: expected {len(logits)} whole numbers"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}: this network knows 0 to {logits.shape[1] - 1}"
        )
    rows = np.arange(len(labels), dtype=np.int64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = shifted[rows, labels]
    dlogits = np.exp(shifted, out=shifted)
    sums = dlogits.sum(axis=1, keepdims=True)
    dlogits /= sums * len(labels)
    dlogits[rows, labels] -= 1 / len(labels)
    return float((np.log(sums[:, 0]) - right).mean()), dlogits


def squared_error(outputs: Array, targets: Array) -> tuple[float, Array]:
    """Mean squared error over the batch and the outputs.

    outputs: (B, outputs) float; targets: as many numbers, (B,) will do for one output. Returns the loss and doutputs,
    in the outputs' dtype. Raises InputError when the targets are more or fewer.
    """
    if targets.shape[:1] != outputs.shape[:1] or targets.size != outputs.size:
        raise InputError(f"targets of shape {targets.shape}: expected {outputs.shape}, as the network's outputs")
    difference = outputs - targets.reshape(outputs.shape).astype(outputs.dtype, copy=False)
    return float(np.mean(difference * difference)), difference * (2 / difference.size)


class Loss(NamedTuple):
    """A row of `LOSSES`.

    function: (outputs (B, outputs), labels or targets) -> the mean loss and its gradient, in the outputs' dtype; it
    raises InputError for what does not fit. classifies: whether labels are whole numbers, one output a class, so that
    the softmax of the outputs are probabilities, there is an accuracy, and a model has a name for each output. embeds:
    whether labels are whole numbers and outputs are an embedding, which has no classes until prototypes make them.
    """

    function: LossFunction
    classifies: bool
    embeds: bool = False


LOSSES: dict[str, Loss] = {
    "cross-entropy": Loss(cross_entropy, classifies=True),
    "mse": Loss(squared_error, classifies=False),
    "prototypes": Loss(leave_one_out, classifies=False, embeds=True),
}
