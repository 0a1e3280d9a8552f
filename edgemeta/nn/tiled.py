"""Fast convolution by tiles: Cook-Toom transforms of 4x4 outputs, and matrix products between them.

`edgemeta.nn.cooktoom` explains the method and its matrices B, G and A. In two dimensions, with a x a tiles of inputs
that overlap by a - 4, u = (i, j) a place in a tile, and T the tiles of all samples:

    forward    V = B d B^T       M[u] = V[u] @ U[u]       y = A^T M A                U = G w G^T
    backward   Q = A dy A^T      dU[u] = V[u]^T @ Q[u]    dw = G^T dU G
                                 dV[u] = Q[u] @ U[u]^T    dd = B^T dV B, summed where tiles overlap

    V[u], dV[u]: (T, C); U[u], dU[u]: (C, O); M[u], Q[u]: (T, O)

The backward pass is the exact adjoint of the forward one, and shares V and Q. Held to `edgemeta.nn.conv` by the tests.

Three things make it fast in NumPy:
- one `matmul` call does many small products, in C; OpenBLAS runs those faster than large ones that leave the cache.
- samples lie next to channels in memory, so a picture is (H, W, N) with N = B*C numbers in a row. A transform along one
  axis is then one `matmul` that reads and writes strided views (`_windows`, `transpose`): nothing is copied but the
  input, into its border of zeros.
- everything that is not needed again lives in `scratch.passing`, which stays in the cache.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgemeta.nn.conv import ConvBackward
from edgemeta.nn.cooktoom import TILE, Array, transforms
from edgemeta.nn.workspace import Workspace


def convolve(x: Array, weight: Array, scratch: Workspace) -> tuple[Array, ConvBackward]:
    """Convolve a batch; arguments and results are those of `edgemeta.nn.conv.convolve`.

    x: (B, H, W, C), weight: (k, k, C, O), both float32, with k one of `edgemeta.nn.cooktoom.KERNELS`.
    """
    batch, height, width, channels = x.shape
    kernel, filters = weight.shape[0], weight.shape[3]
    b, g, a, _ = transforms(kernel)
    size = len(b)
    down, right = -(-height // TILE), -(-width // TILE)
    tiles = down * right * batch
    v = scratch.array("V", (size * size, tiles, channels), x.dtype)
    u = scratch.array("U", (size * size, channels, filters), x.dtype)
    _transform_inputs(x, b, kernel, v.reshape(size, size, down, right, batch * channels), scratch)
    _along_both(g, weight.reshape(kernel, kernel, -1), u.reshape(size, size, -1), scratch)
    m = np.matmul(v, u, out=scratch.passing.array("M", (size * size, tiles, filters), x.dtype))
    y = scratch.result((batch, TILE * down, TILE * right, filters), x.dtype)
    _transform_outputs(m.reshape(size, size, down, right, batch * filters), a, y.transpose(1, 2, 0, 3), scratch)

    def backward(dy: Array, need_dx: bool) -> tuple[Array, Array | None]:
        q = scratch.passing.array("M", (size, size, down, right, batch * filters), dy.dtype)
        _adjoint_outputs(dy, a, q, scratch)
        du = scratch.passing.array("dU", u.shape, u.dtype)
        np.matmul(v.swapaxes(1, 2), q.reshape(size * size, tiles, filters), out=du)
        dweight = scratch.passing.array("dweight", weight.shape, weight.dtype)
        _along_both(g.T, du.reshape(size, size, -1), dweight.reshape(kernel, kernel, -1), scratch)
        dx = _adjoint_inputs(q, u, x.shape, kernel, scratch) if need_dx else None
        return dweight, dx

    return y[:, :height, :width], backward


def _transform_inputs(x: Array, b: Array, kernel: int, v: Array, scratch: Workspace) -> None:
    """V = B d B^T. x: (B, H, W, C); v: (a, a, down, right, N), written."""
    batch, channels = x.shape[0], x.shape[3]
    size, _, down, right, n = v.shape
    high, wide, border = TILE * down + kernel - 1, TILE * right + kernel - 1, kernel // 2
    padded = scratch.passing.array("padded", (high, wide, batch, channels), x.dtype)
    fill_inside(padded, x.transpose(1, 2, 0, 3), border)
    rows = scratch.passing.array("rows", (down, size, wide, n), x.dtype)
    np.matmul(b, _windows(padded.reshape(high, wide * n), down, size), out=rows.reshape(down, size, wide * n))
    np.matmul(b, _windows(rows, right, size), out=v.transpose(2, 0, 3, 1, 4))


def _transform_outputs(m: Array, a: Array, y: Array, scratch: Workspace) -> None:
    """y = A^T M A. m: (a, a, down, right, N); y: (4 down, 4 right, B, O), written."""
    size, _, down, right, n = m.shape
    rows = scratch.passing.array("rows", (TILE, size, down, right, n), m.dtype)
    # One product for each column of a tile, not one for all: four times as fast while operands fit the cache.
    np.matmul(a.T, m.reshape(size, size, -1).swapaxes(0, 1), out=rows.reshape(TILE, size, -1).swapaxes(0, 1))
    tiled = y.reshape(down, TILE, right, TILE, n)
    np.matmul(a.T, rows.transpose(0, 2, 3, 1, 4), out=tiled.transpose(1, 0, 2, 3, 4))


def _adjoint_outputs(dy: Array, a: Array, q: Array, scratch: Workspace) -> None:
    """Q = A dy A^T. dy: (B, H, W, O); q: (a, a, down, right, N), written."""
    size, _, down, right, n = q.shape
    whole = whole_tiles(dy, scratch).reshape(down, TILE, right * TILE * n)
    rows = scratch.passing.array("rows", (down, size, right, TILE, n), q.dtype)
    np.matmul(a, whole, out=rows.reshape(down, size, -1))
    np.matmul(a, rows, out=q.transpose(2, 0, 3, 1, 4))


def _adjoint_inputs(q: Array, u: Array, shape: tuple[int, ...], kernel: int, scratch: Workspace) -> Array:
    """Return dx of `shape` from Q and U: dV, then B^T dV B summed where tiles overlap."""
    size, _, down, right, _ = q.shape
    batch, channels, filters = shape[0], shape[3], u.shape[2]
    n = batch * channels
    overlap = transforms(kernel).overlap
    # A tile of zeros before the first and after the last stands for the neighbours that they do not have.
    dv = scratch.passing.array("dV", (down + 2, size, size, right, n), q.dtype)
    dv[0] = 0
    dv[-1] = 0
    across = scratch.passing.array("dU", (size * size, filters, channels), u.dtype)
    across[...] = u.swapaxes(1, 2)  # OpenBLAS's small product is half as fast again on a transposed operand
    np.matmul(
        q.reshape(size, size, down, right * batch, filters),
        across.reshape(size, size, 1, filters, channels),
        out=dv[1:-1].reshape(down, size, size, right * batch, channels).transpose(1, 2, 0, 3, 4),
    )
    three = as_strided(  # each tile with its neighbours: 3a rows of a tile, for each of its columns
        dv, (down, size, right, 3 * size, n), tuple(dv.strides[axis] for axis in (0, 2, 3, 1, 4)), writeable=False
    )
    rows = scratch.passing.array("rows", (down, TILE, right + 2, size, n), q.dtype)
    rows[:, :, 0] = 0
    rows[:, :, -1] = 0
    np.matmul(overlap, three, out=rows[:, :, 1:-1].transpose(0, 3, 2, 1, 4))
    beside = rows.reshape(down * TILE, right + 2, size, n)
    three = as_strided(beside, (down * TILE, right, 3 * size, n), beside.strides, writeable=False)
    dx = scratch.result((batch, down * TILE, right * TILE, channels), q.dtype)
    np.matmul(overlap, three, out=dx.transpose(1, 2, 0, 3).reshape(down * TILE, right, TILE, n))
    return dx[:, : shape[1], : shape[2]]


def whole_tiles(dy: Array, scratch: Workspace) -> Array:
    """Return dy (B, H, W, O) as (4 down, 4 right, B, O) in memory, with zeros beyond the picture; copied if need be."""
    batch, height, width, filters = dy.shape
    high, wide = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    beside = dy.transpose(1, 2, 0, 3)
    if (high, wide) == (height, width) and beside.flags.c_contiguous:
        return beside
    whole = scratch.passing.array("padded", (high, wide, batch, filters), dy.dtype)
    fill_inside(whole, beside, 0)
    return whole


def fill_inside(whole: Array, x: Array, border: int) -> None:
    """Write x (H, W, ...) into `whole`, behind `border` rows and columns, and zeros around it."""
    bottom, right = border + x.shape[0], border + x.shape[1]
    whole[:border] = 0
    whole[bottom:] = 0
    whole[border:bottom, :border] = 0
    whole[border:bottom, right:] = 0
    whole[border:bottom, border:right] = x


def _along_both(matrix: Array, x: Array, y: Array, scratch: Workspace) -> None:
    """y = matrix x matrix^T. x: (k, k, N); matrix: (a, k); y: (a, a, N), written."""
    rows = scratch.passing.array("rows", (len(matrix), x.shape[1], x.shape[2]), x.dtype)
    np.matmul(matrix, x.reshape(len(x), -1), out=rows.reshape(len(matrix), -1))
    np.matmul(matrix, rows, out=y)


def _windows(x: Array, count: int, size: int) -> Array:
    """Return (..., count, size, N): `size` places along the last axis but one, starting at every fourth; a view."""
    *before, along, across = x.strides
    return as_strided(
        x, (*x.shape[:-2], count, size, x.shape[-1]), (*before, TILE * along, along, across), writeable=False
    )
