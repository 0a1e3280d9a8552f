"""The dense layer's work: y = x W + b, in pieces of the rows of W.

    x: (B, D), W: (D, O); a piece P of the D rows:   y = b + sum over P of x[:, P] W[P]
                                                     dx[:, P] = dy W[P]^T         dW[P] = x[:, P]^T dy

Pieces are what threads share, the same ones for any number of threads. They are also what makes large weights bearable,
which are read from memory far more slowly than they are multiplied: in the backward pass a piece is small enough to
stay in the cache from one product to the other, and on to its step when a `Descent` stands for the weights' gradient,
which then never exists as a whole.
"""

from functools import partial

import numpy as np

from edgemeta.nn.kernels.blas import small_product
from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.update import Descent
from edgemeta.nn.kernels.workspace import Workspace

FORWARD, BACKWARD = 1024, 512  # rows of a piece: forward, each piece adds to the sums that are to be made


def kernel(units: int) -> Kernel:
    """Return the map of inputs (B, D) to (B, units)."""
    return Kernel(partial(_prepare, units))


def _prepare(units: int, x: Array, scratch: Workspace, kept: Workspace | None) -> Prepared:
    batch, inputs = x.shape
    few = _rows_of_a_small_product(batch, units)
    rows = few if few >= 64 else FORWARD  # below 64, summing the products takes longer than they save
    pieces = _pieces(inputs, FORWARD)
    blocks = [_split(x[:, piece].T, rows).swapaxes(1, 2) for piece in pieces]
    ends = np.cumsum([len(block) for block in blocks])
    parts = scratch.array("parts", (int(ends[-1]), batch, units), x.dtype)
    sums = [parts[end - len(block) : end] for block, end in zip(blocks, ends, strict=True)]
    y = scratch.result((batch, units), x.dtype)
    kept_x = kept.array("x", x.shape, x.dtype) if kept else x

    def multiply(i: int, weight: Array) -> None:
        np.matmul(blocks[i], _split(weight[pieces[i]], rows), out=sums[i])

    def forward(params: Tensors) -> None:
        if kept:
            kept_x[...] = x
        scratch.each(lambda i: multiply(i, params["weight"]), len(pieces))
        np.add.reduce(parts, axis=0, out=y)
        np.add(y, params["bias"], out=y)

    def prepare_backward(dy: Array, need_dx: bool) -> tuple[Array | None, Backward]:
        pieces = _pieces(inputs, BACKWARD)
        product = np.matmul if batch > 1 else np.multiply  # an outer product, for which matmul takes six times as long
        dxt = scratch.result((inputs, batch), x.dtype) if need_dx else None
        across = scratch.array("across", (units, batch), x.dtype)
        passing = [scratch.lane(i).array("dweight", (BACKWARD, units), x.dtype) for i in range(len(pieces))]

        def differentiate(i: int, weight: Array, dweight: Array | Descent) -> None:
            piece = pieces[i]
            if dxt is not None:
                np.matmul(_split(weight[piece], few), across, out=_split(dxt[piece], few))
            part = passing[i][: piece.stop - piece.start] if isinstance(dweight, Descent) else dweight[piece]
            product(_split(kept_x[:, piece].T, few), dy, out=_split(part, few))
            if isinstance(dweight, Descent):
                dweight.step(piece, part)

        def backward(params: Tensors, grads: Gradients) -> None:
            across[...] = dy.T  # W dy^T takes two thirds of the time of dy W^T
            scratch.each(lambda i: differentiate(i, params["weight"], grads["weight"]), len(pieces))
            np.sum(dy, axis=0, out=grads["bias"])

        return None if dxt is None else dxt.T, backward

    return Prepared(y, forward, prepare_backward)


def _rows_of_a_small_product(batch: int, units: int) -> int:
    """Return into how many rows of W a product is best cut, a power of two, so that it divides a piece."""
    small = small_product()
    return min(1 << max(small // (batch * units), 1).bit_length() - 1, FORWARD) if small else FORWARD


def _pieces(inputs: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, inputs)) for start in range(0, inputs, rows)]


def _split(x: Array, rows: int) -> Array:
    """Return x (D, n) as (D / rows, rows, n), a view; in one block where rows do not divide D."""
    return x.reshape(-1, rows if len(x) % rows == 0 else len(x), x.shape[1])
