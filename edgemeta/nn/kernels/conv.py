"""Plain direct convolution: stride 1, 'same' padding, any odd kernel, any float dtype.

The readable reference, the float64 path, what serves few channels, and what the faster way (`tiled.py`) is
tested against. A receptive field is kh rows of kw*C numbers; written out for every place along a row only, the field
of the place below shares all but one of its rows. So the numbers are written out kw times, not kh*kw times, and an
overlapping view shows them as a matrix for each row h of the output, with T = W*B places and samples:

    y[h] (T, O) = fields[h] (kh*kw*C, T)^T @ weight (kh*kw*C, O)
    dweight     = sum over h of fields[h] @ dy[h]
    dx          = dy convolved with the kernel turned by 180 degrees, as each input pixel fed the outputs around it

Its working form is the weights as they are, and for the input's gradient the turned ones beside them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace, fill_inside, in_one_piece
from edgemeta.nn.layout import Shape


def kernel(weight: Shape) -> Kernel:
    """Return the convolution with weights of this shape: (kh, kw, C, O), both kernel sizes odd."""
    return Kernel(partial(_prepare, weight), to_working=_to_working)


def _to_working(tensors: Tensors, need_dx: bool, scratch: Workspace) -> Tensors:
    weight = tensors["weight"]
    if not need_dx:
        return tensors
    kh, kw, channels, filters = weight.shape
    turned = scratch.array("turned", (kh, kw, filters, channels), weight.dtype)
    turned[...] = weight[::-1, ::-1].swapaxes(2, 3)
    return {"weight": weight, "turned": turned}


def _prepare(weight: Shape, x: Array, scratch: Workspace, kept: Workspace | None) -> Prepared:
    """Prepare to convolve x: (B, H, W, C) to (B, H, W, O)."""
    (batch, height, width, _), filters = x.shape, weight[3]
    fields, fill = _fields(x, weight, scratch, kept)
    y = scratch.result((batch, height, width, filters), x.dtype)
    rows = y.transpose(1, 2, 0, 3).reshape(height, width * batch, filters)

    def forward(params: Tensors) -> None:
        fill()
        np.matmul(fields.swapaxes(1, 2), params["weight"].reshape(-1, filters), out=rows)

    def prepare_backward(dy: Array, need_dx: bool) -> tuple[Array | None, Backward]:
        whole, tidy = in_one_piece(dy, (height, width), scratch)
        drows = whole.reshape(height, width * batch, filters)
        products = scratch.array("products", (height, fields.shape[1], filters), x.dtype)
        back = _prepare((*weight[:2], filters, weight[2]), dy, scratch, None) if need_dx else None

        def backward(params: Tensors, grads: Gradients) -> None:
            tidy()
            np.matmul(fields, drows, out=products)
            np.add.reduce(products, axis=0, out=grads["weight"].reshape(-1, filters))
            if back:
                back.forward({"weight": params["turned"]})

        return back and back.y, backward

    return Prepared(y, forward, prepare_backward)


def _fields(x: Array, weight: Shape, scratch: Workspace, kept: Workspace | None) -> tuple[Array, Callable[[], None]]:
    """Return the receptive fields (H, kh*kw*C, W*B), an overlapping view, and what is to fill them."""
    (batch, height, width, channels), (kh, kw) = x.shape, weight[:2]
    padded = scratch.array("padded", (height + kh - 1, channels, width + kw - 1, batch), x.dtype)
    row, channel, column, sample = padded.strides
    written = (kept or scratch).array("fields", (len(padded), kw, channels, width, batch), x.dtype)
    shifted = as_strided(padded, written.shape, (row, column, channel, column, sample), writeable=False)
    shape, (row, _, line, *_) = (height, kh * kw * channels, width * batch), written.strides
    fields = as_strided(written, shape, (row, line, x.itemsize), writeable=False)

    def fill() -> None:
        fill_inside(padded.swapaxes(1, 2), x.transpose(1, 2, 3, 0), kh // 2, kw // 2)
        written[...] = shifted

    return fields, fill
