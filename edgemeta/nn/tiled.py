"""Fast convolution by tiles: Cook-Toom transforms of 4x4 outputs, and matrix products between them.

`edgemeta.nn.cooktoom` explains the method and its matrices B, G and A. In two dimensions, with a x a tiles of inputs
that overlap by a - 4, u = (i, j) a place in a tile, and T the tiles of all samples:

    forward    V = B d B^T       M[u] = V[u] @ U[u]       y = A^T M A                U = G w G^T
    backward   Q = A dy A^T      dU[u] = V[u]^T @ Q[u]    dw = G^T dU G
                                 dV[u] = Q[u] @ U[u]^T    dd = B^T dV B, summed where tiles overlap

    V[u], dV[u]: (T, C); U[u], dU[u]: (C, O); M[u], Q[u]: (T, O)

The backward pass is the exact adjoint of the forward one, and shares V and Q. Held to `edgemeta.nn.conv` by the tests.

Four things make it fast in NumPy:
- one `matmul` call does many small products, in C; OpenBLAS runs those faster than large ones that leave the cache.
- samples lie next to channels in memory, so a picture is (H, W, N) with N = B*C numbers in a row. A transform along one
  axis is then one `matmul` that reads and writes strided views (`_by_tile`, `_windows`): nothing is copied but the
  input, into its border of zeros.
- after the rows' transform the places (i, .) of a tile have nothing to do with each other until the rows of the output,
  so they are worked through in bands of i. M, Q and dV, four times as large as the pictures, never leave the cache.
- everything that is not needed again lives in `scratch.passing`, which the next layer writes over.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgemeta.nn.conv import ConvBackward
from edgemeta.nn.cooktoom import TILE, Array, transforms
from edgemeta.nn.workspace import Workspace

BAND = 1 << 17  # numbers of M or Q that are worked through at once: half a megabyte, which stays in the cache


def convolve(x: Array, weight: Array, scratch: Workspace) -> tuple[Array, ConvBackward]:
    """Convolve a batch; arguments and results are those of `edgemeta.nn.conv.convolve`.

    x: (B, H, W, C), weight: (k, k, C, O), both float32, with k one of `edgemeta.nn.cooktoom.KERNELS`.
    """
    batch, height, width, channels = x.shape
    kernel, filters = weight.shape[0], weight.shape[3]
    b, g, a, overlap = transforms(kernel)
    size, down, right = len(b), -(-height // TILE), -(-width // TILE)
    tiles = right * down * batch
    v = scratch.array("V", (size, size, tiles, channels), x.dtype)
    u = scratch.array("U", (size, size, channels, filters), x.dtype)
    _along_both(g, weight.reshape(kernel, kernel, -1), u.reshape(size, size, -1), scratch)
    high = max(1, min(size, BAND // (size * tiles * filters)))
    bands = [slice(i, min(i + high, size)) for i in range(0, size, high)]

    def band_of_products(band: slice) -> tuple[Array, Array]:
        """Return memory for M, or Q, of a band, and its view by tile: (band, down, right, a, N)."""
        m = scratch.passing.array("M", (band.stop - band.start, size, tiles, filters), x.dtype)
        return m, _by_tile(m, right, down)

    rows = _transform_rows(x, b, kernel, scratch)
    lines = scratch.passing.array("lines", (size, down, right, TILE, batch * filters), x.dtype)
    for band in bands:
        np.matmul(b, _windows(rows[band], right, size), out=_by_tile(v[band], right, down))
        m, places = band_of_products(band)
        np.matmul(v[band], u[band], out=m)
        np.matmul(a.T, places, out=lines[band])
    y = scratch.result((batch, TILE * down, TILE * right, filters), x.dtype)
    np.matmul(a.T, lines.reshape(size, down, right, -1).transpose(1, 2, 0, 3), out=_by_row(y, down, right))

    def backward(dy: Array, need_dx: bool) -> tuple[Array, Array | None]:
        lines = scratch.passing.array("lines", (size, down, right, TILE, batch * filters), dy.dtype)
        whole = _by_row(whole_tiles(dy, scratch), down, right)
        np.matmul(a, whole, out=lines.reshape(size, down, right, -1).transpose(1, 2, 0, 3))
        du = scratch.passing.array("dU", u.shape, u.dtype)
        if need_dx:
            across = scratch.passing.array("across", (size, size, 1, filters, channels), u.dtype)
            across[:, :, 0] = u.swapaxes(2, 3)  # OpenBLAS's small product is half as fast again on a transposed operand
            # A row of zeros before the first and after the last stands for the neighbours that they do not have.
            rows = scratch.passing.array("rows", (down + 2, size, right, TILE, batch * channels), dy.dtype)
            rows[0] = 0
            rows[-1] = 0
        for band in bands:
            q, places = band_of_products(band)
            np.matmul(a, lines[band], out=places)
            np.matmul(v[band].swapaxes(2, 3), q, out=du[band])
            if need_dx:
                _adjoint_columns(q, across[band], overlap, rows[1:-1, band], scratch)
        dx = _adjoint_rows(rows, overlap, x.shape, scratch) if need_dx else None
        dweight = scratch.passing.array("dweight", weight.shape, weight.dtype)
        _along_both(g.T, du.reshape(size, size, -1), dweight.reshape(kernel, kernel, -1), scratch)
        return dweight, dx

    return y[:, :height, :width], backward


def _transform_rows(x: Array, b: Array, kernel: int, scratch: Workspace) -> Array:
    """Return B d, the transform of the tiles' rows: (a, down, 4 right + k - 1, N)."""
    batch, height, width, channels = x.shape
    size, down, right, n = len(b), -(-height // TILE), -(-width // TILE), batch * channels
    high, wide = TILE * down + kernel - 1, TILE * right + kernel - 1
    padded = scratch.passing.array("padded", (high, wide, batch, channels), x.dtype)
    fill_inside(padded, x.transpose(1, 2, 0, 3), kernel // 2)
    rows = scratch.passing.array("rows", (size, down, wide, n), x.dtype)
    windows = _windows(padded.reshape(high, wide * n), down, size)
    np.matmul(b, windows, out=rows.reshape(size, down, wide * n).swapaxes(0, 1))
    return rows


def _adjoint_columns(q: Array, across: Array, overlap: Array, rows: Array, scratch: Workspace) -> None:
    """rows = dV B, summed where tiles beside each other overlap, for a band of dV = Q U^T.

    q: (band, a, tiles, O); across, U^T: (band, a, 1, O, C); rows: (down, band, right, 4, N), written.
    """
    down, band, right, _, n = rows.shape
    size, channels = q.shape[1], across.shape[4]
    dv = scratch.passing.array("dV", (band, right + 2, size, down * n // channels, channels), q.dtype)
    dv[:, 0] = 0
    dv[:, -1] = 0
    np.matmul(q.reshape(band, size, right, -1, q.shape[3]), across, out=dv[:, 1:-1].swapaxes(1, 2))
    by_tile = dv.reshape(band, right + 2, size, down, n).transpose(3, 0, 1, 2, 4)
    np.matmul(overlap, _with_neighbours(by_tile), out=rows)


def _adjoint_rows(rows: Array, overlap: Array, shape: tuple[int, ...], scratch: Workspace) -> Array:
    """Return dx of `shape`: B^T rows, summed where tiles above each other overlap. rows: (down + 2, a, right, 4, N)."""
    batch, height, width, channels = shape
    down, size, right = rows.shape[0] - 2, rows.shape[1], rows.shape[2]
    dx = scratch.result((batch, down * TILE, right * TILE, channels), rows.dtype)
    by_tile = rows.reshape(down + 2, size, right, -1).transpose(2, 0, 1, 3)
    np.matmul(overlap, _with_neighbours(by_tile), out=_by_row(dx, down, right).swapaxes(0, 1))
    return dx[:, :height, :width]


def whole_tiles(dy: Array, scratch: Workspace) -> Array:
    """Return dy (B, H, W, O) as (B, 4 down, 4 right, O), with zeros beyond the picture; copied if need be.

    It lies in memory as `Workspace.samples` has it.
    """
    batch, height, width, filters = dy.shape
    high, wide = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    beside = dy.transpose(1, 2, 0, 3)
    if (high, wide) == (height, width) and beside.flags.c_contiguous:
        return dy
    whole = scratch.passing.array("padded", (high, wide, batch, filters), dy.dtype)
    fill_inside(whole, beside, 0)
    return whole.transpose(2, 0, 1, 3)


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
    half = scratch.passing.array("half", (len(matrix), x.shape[1], x.shape[2]), x.dtype)
    np.matmul(matrix, x.reshape(len(x), -1), out=half.reshape(len(matrix), -1))
    np.matmul(matrix, half, out=y)


def _by_tile(products: Array, right: int, down: int) -> Array:
    """Return (band, a, tiles, C), which has its tiles column by column, as (band, down, right, a, N); a view."""
    band, size = products.shape[:2]
    return products.reshape(band, size, right, down, -1).transpose(0, 3, 2, 1, 4)


def _by_row(y: Array, down: int, right: int) -> Array:
    """Return a picture (B, 4 down, 4 right, O) as (down, right, 4 rows, 4 N), a row of a tile in one piece; a view."""
    return y.transpose(1, 2, 0, 3).reshape(down, TILE, right, -1).swapaxes(1, 2)


def _windows(x: Array, count: int, size: int) -> Array:
    """Return (..., count, size, N): `size` places along the last axis but one, starting at every fourth; a view."""
    *before, along, across = x.strides
    return as_strided(
        x, (*x.shape[:-2], count, size, x.shape[-1]), (*before, TILE * along, along, across), writeable=False
    )


def _with_neighbours(x: Array) -> Array:
    """Return (..., tiles, 3a, N) of (..., tiles + 2, a, N): each tile with the ones before and after it; a view."""
    *before, tiles, size, n = x.shape
    return as_strided(x, (*before, tiles - 2, 3 * size, n), x.strides, writeable=False)
