"""Plain direct convolution: stride 1, 'same' padding, any odd kernel, any float dtype.

The readable reference, the float64 path, and what faster kernels are tested against. Each sample's receptive
fields are written out as the rows of a matrix ("im2col"), so that the convolution is one matrix product:

    columns (H*W, kh*kw*C) @ weight (kh*kw*C, O) = output (H*W, O)

The matrix is k*k times as large as the picture, so it is made for a few samples at a time: a block that stays in
the cache is read back by the product at once, and the whole batch never exists in that form. The backward pass
makes it again instead of keeping it.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgemeta.nn.workspace import Workspace

Array = NDArray[Any]
ConvBackward = Callable[[Array, bool], tuple[Array, Array | None]]
BLOCK_BYTES = 1 << 19  # columns of one block: about half of a small core's L2 cache


def convolve(x: Array, weight: Array, scratch: Workspace) -> tuple[Array, ConvBackward]:
    """Convolve a batch, and return the output with the function that computes the gradients.

    x: (B, H, W, C); weight: (kh, kw, C, O) with odd kh and kw; both of one float dtype.
    Returns y: (B, H, W, O), in scratch memory, and backward(dy, need_dx) -> (dweight, dx or None).
    """
    kh, kw, channels, filters = weight.shape
    padded = _pad(x, (kh, kw), "x", scratch)
    y = _correlate(padded, weight, scratch)

    def backward(dy: Array, need_dx: bool) -> tuple[Array, Array | None]:
        dweight = np.zeros((kh * kw * channels, filters), weight.dtype)
        for block, columns in _blocks(padded, (kh, kw), scratch):
            dweight += columns.T @ dy[block].reshape(-1, filters)
        if not need_dx:
            return dweight.reshape(weight.shape), None
        return dweight.reshape(weight.shape), input_gradient(dy, weight, scratch)

    return y, backward


def input_gradient(dy: Array, weight: Array, scratch: Workspace) -> Array:
    """Return dx (B, H, W, C) for dy (B, H, W, O), in scratch memory.

    Each input pixel fed the outputs around it through the kernel turned by 180 degrees, so dx is itself a
    convolution of dy, and needs no scatter-add.
    """
    kh, kw = weight.shape[:2]
    turned = np.ascontiguousarray(weight[::-1, ::-1].swapaxes(2, 3))
    return _correlate(_pad(dy, (kh, kw), "dy", scratch.passing), turned, scratch)


def _pad(x: Array, kernel: tuple[int, int], key: str, scratch: Workspace) -> Array:
    """Return x (B, H, W, C) with a border of zeros, half a kernel wide."""
    batch, height, width, channels = x.shape
    top, left = kernel[0] // 2, kernel[1] // 2
    padded = scratch.array((key, "padded"), (batch, height + 2 * top, width + 2 * left, channels), x.dtype)
    padded.fill(0)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _correlate(padded: Array, weight: Array, scratch: Workspace) -> Array:
    """Return (B, H, W, O): every receptive field of `padded` times the weights."""
    kh, kw, _, filters = weight.shape
    batch, height, width = padded.shape[0], padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    y = scratch.result((batch * height * width * filters,), padded.dtype).reshape(batch, height, width, filters)
    for block, columns in _blocks(padded, (kh, kw), scratch):
        np.matmul(columns, weight.reshape(-1, filters), out=y[block].reshape(-1, filters))
    return y


def _blocks(padded: Array, kernel: tuple[int, int], scratch: Workspace) -> Iterator[tuple[slice, Array]]:
    """Yield (slice of samples, their columns (samples*H*W, kh*kw*C)) over the batch."""
    fields = sliding_window_view(padded, kernel, axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)  # (B, H, W, kh, kw, C)
    row_bytes = math.prod(fields.shape[1:]) * padded.itemsize
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(padded), step):
        block = slice(start, min(start + step, len(padded)))
        columns = scratch.passing.array("columns", fields[block].shape, padded.dtype)
        columns[...] = fields[block]
        yield block, columns.reshape(-1, math.prod(kernel) * padded.shape[3])
