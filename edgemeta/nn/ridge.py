"""A head in closed form: ridge regression of one-hot labels on features (Bertinetto et al. 2019, arXiv:1805.08136).

The paper learns how strongly weights are held and what outputs are multiplied by. Here both are those under which the
support set itself, each sample left out of the regression that predicts it, does best; that costs no further solve.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Labels = NDArray[np.int64]

HELD = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # how strongly, as a share of the features' squared distances from their mean
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # of outputs, which are near 0 and 1


def ridge_head(z: Array, places: Labels, classes: int) -> tuple[Array, Array]:
    """Return the weights (E, K) and biases (K,) of the dense layer that regression makes, in the dtype of z.

    z: (N, E) features; places: (N,) whole numbers below `classes`, each of them there. Where nothing tells how strongly
    to hold the weights, as each class has one sample, that is the middle of what is tried.
    """
    if not np.isfinite(z).all():  # of a model that diverged, which shows in the scores
        return np.full((z.shape[1], classes), np.nan, z.dtype), np.full(classes, np.nan, z.dtype)
    wide, targets = z.astype(np.float64), np.eye(classes, dtype=np.float64)[places]
    centre, level = wide.mean(axis=0), targets.mean(axis=0)
    left, values, right = np.linalg.svd(wide - centre, full_matrices=False)
    squares = np.square(values)
    unit, turned = float(squares.sum()) or 1.0, left.T @ (targets - level)
    told = np.bincount(places, minlength=classes)[places] > 1

    def without(held: float) -> Array:
        """Return each sample's outputs by the regression on all others."""
        shares = squares / (squares + held * unit)
        leverage = 1 / len(z) + np.square(left) @ shares
        rest = targets - (level + left @ (shares[:, np.newaxis] * turned))
        return np.asarray(targets - rest / (1 - leverage[:, np.newaxis]))

    held, scale = HELD[len(HELD) // 2], SCALES[len(SCALES) // 2]
    if told.any() and classes > 1:
        held = min(HELD, key=lambda held: float(np.square(without(held) - targets)[told].sum()))
        outputs, own = without(held)[told], places[told]
        scale = max(SCALES, key=lambda scale: _likelihood(scale * outputs, own))
    weight = right.T @ ((values / (squares + held * unit))[:, np.newaxis] * turned)
    bias = level - centre @ weight
    return np.ascontiguousarray((scale * weight).astype(z.dtype)), (scale * bias).astype(z.dtype)


def _likelihood(logits: Array, places: Labels) -> float:
    logits = logits - logits.max(axis=1, keepdims=True)
    chances = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(chances[np.arange(len(places)), places].sum())
