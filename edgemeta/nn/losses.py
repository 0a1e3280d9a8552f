"""Losses: each returns the batch's mean loss and its gradient with respect to the network's output."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def softmax(logits: Array) -> Array:
    """Return probabilities (B, classes) that sum to one; shifting by the largest logit keeps exp finite."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Softmax cross-entropy: -mean log p[label].

    logits: (B, classes) float; labels: (B,) integers. Returns the loss and dlogits: (B, classes).
    """
    rows = np.arange(len(labels), dtype=np.int64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    dlogits = np.exp(log_p)
    dlogits[rows, labels] -= 1
    dlogits /= len(labels)
    return -float(log_p[rows, labels].mean()), dlogits


def squared_error(outputs: Array, targets: Array) -> tuple[float, Array]:
    """Mean squared error over the batch and the outputs.

    outputs, targets: (B, outputs) float. Returns the loss and doutputs.
    """
    difference = outputs - targets.reshape(outputs.shape)
    return float(np.mean(difference * difference)), difference * (2 / difference.size)


Loss = Callable[[Array, Array], tuple[float, Array]]
LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "mse": squared_error}
