"""One number for each channel, added to pictures (B, H, W, C)."""

import numpy as np

from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace, in_one_piece


def kernel() -> Kernel:
    """Return the addition of `bias`: (C,)."""
    return Kernel(_prepare)


def _prepare(x: Array, scratch: Workspace, _kept: Workspace | None) -> Prepared:
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
