"""Fast convolution by tiles: Cook-Toom transforms of 4x4 outputs, and matrix products between them.

`cooktoom.py` explains the method and its matrices B, G and A. In two dimensions, with a x a tiles of inputs
that overlap by a - 4, u = (i, j) a place in a tile, and T the tiles of all samples:

    forward    V = B d B^T       M[u] = V[u] @ U[u]       y = A^T M A                U = G w G^T
    backward   Q = A dy A^T      dU[u] = V[u]^T @ Q[u]    dw = G^T dU G
                                 dV[u] = Q[u] @ U[u]^T    dd = B^T dV B, summed where tiles overlap

    V[u], dV[u]: (T, C); U[u], dU[u]: (C, O); M[u], Q[u]: (T, O)

The backward pass is the exact adjoint of the forward one, and shares V and Q. U is the weights' working form
(see `kernel.py`). Held to the plain convolution, `conv.py`, by the tests.

Five things make it fast in NumPy:
- one `matmul` call does many small products, in C; OpenBLAS runs those faster than large ones that leave the cache.
- samples lie next to channels in memory, so a picture is (H, W, N) with N = B*C numbers in a row. A transform along one
  axis is then one `matmul` that reads and writes strided views (`_by_tile`, `_windows`): nothing is copied but the
  input, into its border of zeros.
- after the rows' transform the places (i, .) of a tile have nothing to do with each other until the rows of the output,
  so they are worked through in bands of i. M, Q and dV, up to four times as large as the pictures, stay in the cache.
- all views are made beforehand, once.
- everything that is not needed again lives in `scratch`, which the next layer writes over.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgemeta.nn.kernels.cooktoom import TILE, transforms
from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Shapes, Tensors
from edgemeta.nn.kernels.workspace import Workspace, fill_inside, in_one_piece
from edgemeta.nn.layout import Shape

BAND = 1 << 17  # numbers of M or Q that are worked through at once: half a megabyte, which stays in the cache


class Band(NamedTuple):
    """Some places (i, .) of the tiles, and the views that they are worked through with.

    columns: windows into the transformed rows; v: of V; products: of M, and backward of Q; by_tile: the same by tile.
    """

    places: slice
    columns: Array
    v: Array
    v_by_tile: Array
    products: Array
    products_by_tile: Array


def kernel(weight: Shape) -> Kernel:
    """Return the convolution of float32 with weights of this shape: (k, k, C, O), k one of `KERNELS`."""
    return Kernel(partial(_prepare, weight), _working_shapes, _to_working, _from_working)


def _working_shapes(shapes: Shapes) -> Shapes:
    """Return the shape of U: (a, a, C, O)."""
    size, _, channels, filters = shapes["weight"]
    a = size + TILE - 1
    return {"weight": (a, a, channels, filters)}


def _to_working(tensors: Tensors, need_dx: bool, scratch: Workspace) -> Tensors:
    """Return U and, if need be, its transpose as a copy: products with a transposed view take half as long again."""
    weight = tensors["weight"]
    size, _, channels, filters = shape = _working_shapes({"weight": weight.shape})["weight"]
    u = scratch.array("U", shape, weight.dtype)
    _along_both(transforms(len(weight)).weights, weight, u, scratch)
    if not need_dx:
        return {"weight": u}
    across = scratch.array("across", (size, size, filters, channels), u.dtype)
    across[...] = u.swapaxes(2, 3)
    return {"weight": u, "across": across}


def _from_working(sums: Tensors, grads: Gradients, scratch: Workspace) -> None:
    """Write the weights' gradient G^T dU G."""
    weight = grads["weight"]
    _along_both(transforms(len(weight)).weights.T, sums["weight"], weight, scratch)


def _prepare(weight: Shape, x: Array, scratch: Workspace, kept: Workspace | None) -> Prepared:
    """Prepare to convolve x: (B, H, W, C), float32, to (B, H, W, O)."""
    batch, height, width, channels = x.shape
    k, filters = weight[0], weight[3]
    b, _, a, _ = transforms(k)
    size, down, right = len(b), -(-height // TILE), -(-width // TILE)
    tiles = right * down * batch
    high = max(1, min(size, BAND // (size * tiles * filters)))
    padded = scratch.array("padded", (TILE * down + k - 1, TILE * right + k - 1, batch, channels), x.dtype)
    rows = scratch.array("rows", (size, down, padded.shape[1], batch * channels), x.dtype)
    v = (kept or scratch).array("V", (size, size, tiles, channels), x.dtype)
    m = scratch.array("M", (high, size, tiles, filters), x.dtype)  # of one band; in the backward pass Q
    lines = scratch.array("lines", (size, down, right, TILE, batch * filters), x.dtype)
    y = scratch.result((batch, TILE * down, TILE * right, filters), x.dtype)
    windows = _windows(padded.reshape(len(padded), -1), down, size)
    rows_by_tile = rows.reshape(size, down, -1).swapaxes(0, 1)
    lines_by_tile = lines.reshape(size, down, right, -1).transpose(1, 2, 0, 3)
    y_by_tile = _in_tiles(y.transpose(1, 2, 0, 3), down, right)
    bands = []
    for places in (slice(i, min(i + high, size)) for i in range(0, size, high)):
        products, columns = m[: places.stop - places.start], _windows(rows[places], right, size)
        by_tile = [_by_tile(array, down, right) for array in (v[places], products)]
        bands.append(Band(places, columns, v[places], by_tile[0], products, by_tile[1]))

    def forward(params: Tensors) -> None:
        fill_inside(padded, x.transpose(1, 2, 0, 3), k // 2, k // 2)
        np.matmul(b, windows, out=rows_by_tile)
        for band in bands:
            np.matmul(b, band.columns, out=band.v_by_tile)
            np.matmul(band.v, params["weight"][band.places], out=band.products)
            np.matmul(a.T, band.products_by_tile, out=lines[band.places])
        np.matmul(a.T, lines_by_tile, out=y_by_tile)

    def prepare_backward(dy: Array, need_dx: bool) -> tuple[Array | None, Backward]:
        whole, tidy = in_one_piece(dy, (TILE * down, TILE * right), scratch)
        dy_by_tile = _in_tiles(whole, down, right)
        dx, add_band, add_rows = _prepare_input_gradient(x, m, scratch, k) if need_dx else (None, None, None)

        def backward(params: Tensors, grads: Gradients) -> None:
            tidy()
            np.matmul(a, dy_by_tile, out=lines_by_tile)
            for band in bands:
                np.matmul(a, lines[band.places], out=band.products_by_tile)
                np.matmul(band.v.swapaxes(2, 3), band.products, out=grads["weight"][band.places])
                if add_band:
                    add_band(band.places, params["across"])
            if add_rows:
                add_rows()

        return dx, backward

    return Prepared(y[:, :height, :width], forward, prepare_backward)


def _prepare_input_gradient(
    x: Array, q: Array, scratch: Workspace, k: int
) -> tuple[Array, Callable[[slice, Array], None], Callable[[], None]]:
    """Return dx and the functions that compute it: for each band of Q, the first one first, and once at the end.

    q: (high, a, tiles, O), where each band's Q is when its function is called, with its places and the transposed U.
    """
    batch, height, width, channels = x.shape
    overlap, n = transforms(k).overlap, batch * channels
    high, size, _, filters = q.shape
    down, right = -(-height // TILE), -(-width // TILE)
    # A tile of zeros before the first and after the last stands for the neighbours that they do not have.
    dv = scratch.array("dV", (high, right + 2, size, down * batch, channels), x.dtype)
    rows = scratch.array("rows", (down + 2, size, right, TILE, n), x.dtype)
    dx = scratch.result((batch, TILE * down, TILE * right, channels), x.dtype)
    q_by_column = q.reshape(high, size, right, down * batch, filters)
    dv_by_place = dv[:, 1:-1].swapaxes(1, 2)
    dv_tiles = _with_neighbours(dv.reshape(high, right + 2, size, down, n).transpose(3, 0, 1, 2, 4))
    row_tiles = _with_neighbours(rows.reshape(down + 2, size, right, -1).transpose(2, 0, 1, 3))
    dx_by_tile = _in_tiles(dx.transpose(1, 2, 0, 3), down, right).swapaxes(0, 1)

    def add_band(places: slice, across: Array) -> None:
        """rows = dV B, summed where tiles beside each other overlap, of dV = Q U^T."""
        many = places.stop - places.start
        if not places.start:
            dv[:, 0] = 0
            dv[:, -1] = 0
        np.matmul(q_by_column[:many], across[places, :, np.newaxis], out=dv_by_place[:many])
        np.matmul(overlap, dv_tiles[:, :many], out=rows[1:-1, places])

    def add_rows() -> None:
        """dx = B^T rows, summed where tiles above each other overlap."""
        rows[0] = 0
        rows[-1] = 0
        np.matmul(overlap, row_tiles, out=dx_by_tile)

    return dx[:, :height, :width], add_band, add_rows


def _along_both(matrix: Array, x: Array, y: Array, scratch: Workspace) -> None:
    """y = matrix x matrix^T. x: (k, k, ...); matrix: (a, k); y: (a, a, ...), written."""
    half = scratch.array("half", (len(matrix), x.shape[1], x[0, 0].size), x.dtype)
    np.matmul(matrix, x.reshape(len(x), -1), out=half.reshape(len(matrix), -1))
    np.matmul(matrix, half, out=y.reshape(len(matrix), len(matrix), -1))


def _by_tile(products: Array, down: int, right: int) -> Array:
    """Return (band, a, tiles, C), which has its tiles column by column, as (band, down, right, a, N); a view."""
    band, size = products.shape[:2]
    return products.reshape(band, size, right, down, -1).transpose(0, 3, 2, 1, 4)


def _in_tiles(y: Array, down: int, right: int) -> Array:
    """Return pictures (4 down, 4 right, B, O) as (down, right, 4 rows, 4 N), a row of a tile in one piece; a view."""
    return y.reshape(down, TILE, right, -1).swapaxes(1, 2)


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
