"""The kernels that are little more than one call of NumPy: ReLU, a bias, and a view."""

import math

import numpy as np

from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace, in_one_piece


def relu() -> Kernel:
    """Return max(x, 0), of any shape."""
    return Kernel(_relu)


def bias() -> Kernel:
    """Return the addition of `bias`: (C,), to pictures (B, H, W, C)."""
    return Kernel(_bias)


def flatten() -> Kernel:
    """Return the view of (B, ...) as (B, D), in the order (H, W, C): nothing is copied."""
    return Kernel(_flatten)


def _relu(x: Array, scratch: Workspace, kept: Workspace | None) -> Prepared:
    y = scratch.result(x.shape, x.dtype)
    # np.maximum with a scalar takes twice the time; in pictures, (B, 1, 1, C) lies beside what is in one piece.
    zeros = np.zeros((len(x) if x.ndim == 4 else 1, *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype)
    positive = (kept or scratch).samples("positive", x.shape, np.bool_)

    def forward(_: Tensors) -> None:
        np.maximum(x, zeros, out=y)
        if kept:
            np.greater(y, 0, out=positive)

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        dx = scratch.result(dy.shape, dy.dtype)

        def backward(_params: Tensors, _grads: Gradients) -> None:
            np.multiply(dy, positive, out=dx)

        return dx, backward

    return Prepared(y, forward, prepare_backward)


def _bias(x: Array, scratch: Workspace, _kept: Workspace | None) -> Prepared:
    y = scratch.result(x.shape, x.dtype)
    each = np.empty((len(x), x.shape[3]), x.dtype)  # the biases for every sample: long rows are added faster
    beside, sums = x.transpose(1, 2, 0, 3), y.transpose(1, 2, 0, 3)

    def forward(params: Tensors) -> None:
        each[...] = params["bias"]
        np.add(beside, each, out=sums)

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        whole, tidy = in_one_piece(dy, dy.shape[1:3], scratch)
        rows = whole.reshape(-1, dy.shape[3])
        ones = np.ones(len(rows), dy.dtype)

        def backward(_: Tensors, grads: Gradients) -> None:
            tidy()
            np.matmul(ones, rows, out=grads["bias"])  # ten times as fast as np.sum

        return dy, backward

    return Prepared(y, forward, prepare_backward)


def _flatten(x: Array, _scratch: Workspace, _kept: Workspace | None) -> Prepared:
    assert x.flags.c_contiguous, "a copy would be made once, and not again when x is filled anew"

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        return dy.reshape(x.shape), lambda _params, _grads: None  # splitting an axis gives a view of any array

    return Prepared(x.reshape(len(x), math.prod(x.shape[1:])), lambda _: None, prepare_backward)
