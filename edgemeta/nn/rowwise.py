"""Fast convolution for few channels: Cook-Toom along the width only, kernel rows by plain summation.

A first layer sees one or three channels. Tiles in two dimensions would leave products over C = 3 numbers, too few to
be worth the transforms. With tiles of 1x4 outputs, and u a place in the a inputs of a tile, products run over k*C:

    V[u] = B d                 (C, H + k - 1, T), T the tiles of a row, of all samples
    M[u, h] = V[u, rows h .. h + k - 1]^T @ U[u]         (T, k*C) @ (k*C, O), with U = w G^T
    y[h] = A^T M[h]

The rows that one row of outputs needs lie one after the other in memory, so the overlapping operands are a view.
Half the multiplications of the plain convolution for a kernel of 5. Held to `edgemeta.nn.conv` by the tests.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgemeta.nn import conv
from edgemeta.nn.cooktoom import TILE, Array, transforms
from edgemeta.nn.tiled import BAND, whole_tiles
from edgemeta.nn.workspace import Workspace


def convolve(x: Array, weight: Array, scratch: Workspace) -> tuple[Array, conv.ConvBackward]:
    """Convolve a batch; arguments and results are those of `edgemeta.nn.conv.convolve`.

    x: (B, H, W, C), weight: (k, k, C, O), both float32, with k one of `edgemeta.nn.cooktoom.KERNELS`.
    """
    batch, height, width, channels = x.shape
    kernel, filters = weight.shape[0], weight.shape[3]
    b, g, a, _ = transforms(kernel)
    size, right, n = len(b), -(-width // TILE), batch * filters
    fields = _transform_inputs(x, b, kernel, scratch)
    # weight by the kernel's columns, so that its rows and the channels are the rows of a product
    u = np.matmul(g, weight.swapaxes(0, 1).reshape(kernel, -1)).reshape(size, 1, kernel * channels, filters)
    y = scratch.result((batch, height, right * TILE, filters), x.dtype)
    tiled = y.transpose(1, 2, 0, 3).reshape(height, right, TILE, n)
    high = max(1, BAND // (size * right * n))  # rows whose products stay in the cache
    bands = [slice(top, min(top + high, height)) for top in range(0, height, high)]

    def products(band: slice) -> tuple[Array, Array]:
        """Return memory for one band's M, or Q, and its view by place: (rows, right, a, N)."""
        m = scratch.passing.array("M", (size, band.stop - band.start, right * batch, filters), x.dtype)
        return m, m.reshape(size, -1, right, n).transpose(1, 2, 0, 3)

    for band in bands:
        m, places = products(band)
        np.matmul(fields[:, band].swapaxes(2, 3), u, out=m)
        np.matmul(a.T, places, out=tiled[band])

    def backward(dy: Array, need_dx: bool) -> tuple[Array, Array | None]:
        whole = whole_tiles(dy, scratch)[:, :height].transpose(1, 2, 0, 3).reshape(height, right, TILE, n)
        du = scratch.passing.array("dU", (size, height, *u.shape[2:]), dy.dtype)
        for band in bands:
            q, places = products(band)
            np.matmul(a, whole[band], out=places)
            np.matmul(fields[:, band], q, out=du[:, band])
        dweight = (g.T @ du.sum(axis=1).reshape(size, -1)).reshape(kernel, kernel, channels, filters).swapaxes(0, 1)
        return dweight, conv.input_gradient(dy, weight, scratch) if need_dx else None

    return y[:, :, :width], backward


def _transform_inputs(x: Array, b: Array, kernel: int, scratch: Workspace) -> Array:
    """Return V as (a, H, k*C, T), a view in which each row of the picture is there for up to k rows of outputs."""
    batch, height, width, channels = x.shape
    size, right, border = len(b), -(-width // TILE), kernel // 2
    high, wide = height + kernel - 1, TILE * right + kernel - 1
    padded = scratch.passing.array("padded", (high, channels, wide, batch), x.dtype)
    padded.fill(0)
    padded[border : border + height, :, border : border + width] = x.transpose(1, 3, 2, 0)
    line, channel, column, sample = padded.strides
    spread = scratch.passing.array("spread", (size, high, channels, right, batch), x.dtype)
    spread[...] = as_strided(padded, spread.shape, (column, line, channel, TILE * column, sample), writeable=False)
    v = scratch.array("V", (size, high, channels * right * batch), x.dtype)
    np.matmul(b, spread.reshape(size, -1), out=v.reshape(size, -1))
    place, line, item = v.strides
    shape = (size, height, kernel * channels, right * batch)
    return as_strided(v, shape, (place, line, right * batch * item, item), writeable=False)
