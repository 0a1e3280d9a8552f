"""The largest value of each size x size tile of a picture; what is beyond the last whole tile is left out."""

from functools import partial

import numpy as np

from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace


def kernel(size: int) -> Kernel:
    """Return the pool of (B, H, W, C) to (B, H // size, W // size, C)."""
    return Kernel(partial(_prepare, size))


def _prepare(size: int, x: Array, scratch: Workspace, kept: Workspace | None) -> Prepared:
    first, *others = _positions(x, size)
    y = scratch.result(first.shape, x.dtype)
    larger = [kept.samples(i, y.shape, np.bool_) for i in range(len(others))] if kept else []

    def forward(_: Tensors) -> None:
        before = first
        for i, place in enumerate(others):
            if kept:
                np.greater(place, before, out=larger[i])
            before = np.maximum(before, place, out=y)
        if not others:
            y[...] = first

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        dx = scratch.result(x.shape, dy.dtype)
        first, *others = _positions(dx, size)
        gone, won = (scratch.samples(key, dy.shape, np.bool_) for key in ("gone", "won"))

        def backward(_params: Tensors, _grads: Gradients) -> None:
            if x.shape[1] % size or x.shape[2] % size:
                dx.fill(0)  # what no tile covers
            # From the last place to the first: whoever was larger than all before it takes the gradient, so that
            # of equal values the first one does. Kept masks of one byte are read faster than x would be again.
            gone.fill(False)
            for place, mask in zip(reversed(others), reversed(larger), strict=True):
                np.greater(mask, gone, out=won)
                np.multiply(dy, won, out=place)
                np.logical_or(gone, mask, out=gone)
            np.logical_not(gone, out=won)
            np.multiply(dy, won, out=first)

        return dx, backward

    return Prepared(y, forward, prepare_backward)


def _positions(x: Array, size: int) -> list[Array]:
    """Return one strided view of x for each place in a tile, in reading order."""
    height, width = (length // size * size for length in x.shape[1:3])
    return [x[:, i:height:size, j:width:size] for i in range(size) for j in range(size)]
