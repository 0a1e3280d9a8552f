"""The layers: each is a frozen record of its settings, and a forward function that returns its own backward.

    y, backward = layer.forward(params, x, scratch, keep)
    dx = backward(dy, grads, need_dx)

`params` and `grads` map the layer's own tensor names ("weight", "bias") to views of the flat vectors; backward
writes each gradient once. The closure is the cache: there is no state in a layer, and it dies when dropped.
What forward and backward return is for the next layer only, and may be overwritten after that (`Workspace.result`);
a layer that needs its x in the backward pass keeps it in `scratch`, which lasts until the next batch, unless the caller
says with `keep` that no backward pass will come.
Shapes: B batch, H height, W width, C channels in, O channels or units out. Pictures are (B, H, W, C).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn import conv, rowwise, tiled
from edgemeta.nn.cooktoom import KERNELS, TILE
from edgemeta.nn.layout import Shape
from edgemeta.nn.workspace import Workspace

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Backward = Callable[[Array, Tensors, bool], Array | None]
ROWWISE_BELOW = 32  # length of the products along kernel rows and channels, under which tiles of 4x4 do not pay
SMALL = 10**6  # multiplications that OpenBLAS does without packing the operands first, which takes half as long
PIECE = 1024  # rows of a dense layer's weights that a thread takes at once


@dataclass(frozen=True)
class Conv2d:
    """Convolution with stride 1 and 'same' padding; weights (kernel, kernel, C, filters)."""

    filters: int
    kernel: int
    prefix: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        if self.filters < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(
                f"{self}: expected at least one filter and an odd kernel size, so that 'same' padding is even"
            )

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the output's shape and the tensors' shapes for an input (H, W, C)."""
        height, width, channels = _picture(self, shape)
        weight = (self.kernel, self.kernel, channels, self.filters)
        return (height, width, self.filters), {"weight": weight, "bias": (self.filters,)}

    def forward(self, params: Tensors, x: Array, scratch: Workspace, _keep: bool = True) -> tuple[Array, Backward]:
        """Convolve x: (B, H, W, C) to (B, H, W, filters); without a "bias" in params, none is added."""
        y, back = self._convolution(x)(x, params["weight"], scratch)
        if "bias" in params:
            y += params["bias"]

        def backward(dy: Array, grads: Tensors, need_dx: bool) -> Array | None:
            if "bias" in grads:
                grads["bias"][...] = _sums(dy)
            dweight, dx = back(dy, need_dx)
            grads["weight"][...] = dweight
            return dx

        return y, backward

    def _convolution(self, x: Array) -> Callable[[Array, Array, Workspace], tuple[Array, conv.ConvBackward]]:
        """Return the fastest `convolve` for x; the plain one serves everything."""
        _, height, width, channels = x.shape
        if x.dtype != np.float32 or self.kernel not in KERNELS or min(height, width) < TILE:
            return conv.convolve
        return rowwise.convolve if channels * self.kernel < ROWWISE_BELOW else tiled.convolve


@dataclass(frozen=True)
class MaxPool2d:
    """The largest value of each size x size tile; rows and columns beyond the last whole tile are left out."""

    size: int
    prefix: ClassVar[str] = "pool"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the output's shape for an input (H, W, C); there are no tensors."""
        height, width, channels = _picture(self, shape)
        if self.size < 1 or min(height, width) < self.size:
            raise InputError(f"{self} on a picture of {height}x{width}: expected a tile of 1 up to the picture's size")
        return (height // self.size, width // self.size, channels), {}

    def forward(self, _: Tensors, x: Array, scratch: Workspace, keep: bool = True) -> tuple[Array, Backward]:
        """Pool x: (B, H, W, C) to (B, H // size, W // size, C)."""
        tiles = self._positions(x)
        y = scratch.result(tiles[0].shape, x.dtype)
        larger = [scratch.samples(i, y.shape, np.bool_) for i in range(1, len(tiles))] if keep else []
        for i, tile in enumerate(tiles[1:]):
            before = y if i else tiles[0]
            if keep:
                np.greater(tile, before, out=larger[i])
            np.maximum(before, tile, out=y)
        if len(tiles) == 1:
            y[...] = x

        def backward(dy: Array, _: Tensors, _need: bool) -> Array:
            dx = scratch.result(x.shape, dy.dtype)
            if x.shape[1] % self.size or x.shape[2] % self.size:
                dx.fill(0)  # what no tile covers
            # From the last position to the first: whoever was larger than all before it takes the gradient, so that of
            # equal values the first one does. Kept masks of one byte are read faster than x would be again.
            rest = scratch.passing.samples("rest", y.shape, dy.dtype)
            rest[...] = dy
            first, *others = self._positions(dx)
            for dtile, mask in zip(reversed(others), reversed(larger), strict=True):
                np.multiply(rest, mask, out=dtile)
                rest -= dtile
            first[...] = rest
            return dx

        return y, backward

    def _positions(self, x: Array) -> list[Array]:
        """Return one strided view of x for each position in a tile, in reading order."""
        height, width = (size // self.size * self.size for size in x.shape[1:3])
        return [x[:, i : height : self.size, j : width : self.size] for i in range(self.size) for j in range(self.size)]


@dataclass(frozen=True)
class ReLU:
    """max(x, 0), of any shape."""

    prefix: ClassVar[str] = "relu"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the unchanged shape; there are no tensors."""
        return shape, {}

    def forward(self, _: Tensors, x: Array, scratch: Workspace, keep: bool = True) -> tuple[Array, Backward]:
        """Cut x off below zero."""
        y: Array = np.maximum(x, 0, out=scratch.result(x.shape, x.dtype))
        positive = scratch.samples("positive", y.shape, np.bool_)
        if keep:
            np.greater(y, 0, out=positive)

        def backward(dy: Array, _: Tensors, _need: bool) -> Array:
            dx: Array = np.multiply(dy, positive, out=scratch.result(dy.shape, dy.dtype))
            return dx

        return y, backward


@dataclass(frozen=True)
class Bias:
    """A convolution's bias as a step of its own, which the network may take after a pool; not a layer to build with."""

    def forward(self, params: Tensors, x: Array, scratch: Workspace, _keep: bool = True) -> tuple[Array, Backward]:
        """Add one number for each channel to x: (B, H, W, C)."""
        y = np.add(x, params["bias"], out=scratch.result(x.shape, x.dtype))

        def backward(dy: Array, grads: Tensors, _need: bool) -> Array:
            grads["bias"][...] = _sums(dy)
            return dy

        return y, backward


@dataclass(frozen=True)
class Flatten:
    """(B, ...) to (B, D), in the order in which the numbers lie in memory: (H, W, C)."""

    prefix: ClassVar[str] = "flatten"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return (D,); there are no tensors."""
        return (math.prod(shape),), {}

    def forward(self, _: Tensors, x: Array, _scratch: Workspace, _keep: bool = True) -> tuple[Array, Backward]:
        """Flatten all but the batch's axis."""

        def backward(dy: Array, _: Tensors, _need: bool) -> Array:
            return dy.reshape(x.shape)

        return x.reshape(len(x), math.prod(x.shape[1:])), backward


@dataclass(frozen=True)
class Dense:
    """x @ weight + bias; weight (D, units)."""

    units: int
    prefix: ClassVar[str] = "dense"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the output's shape and the tensors' shapes for an input (D,)."""
        if len(shape) != 1 or self.units < 1:
            raise InputError(
                f"{self} on an input of shape {shape}: expected one axis (put Flatten() before) and 1 unit or more"
            )
        return (self.units,), {"weight": (shape[0], self.units), "bias": (self.units,)}

    def forward(self, params: Tensors, x: Array, scratch: Workspace, keep: bool = True) -> tuple[Array, Backward]:
        """Map x: (B, D) to (B, units).

        Large weights are worked through in pieces of their rows, the same ones for any number of threads.
        """
        weight, batch = params["weight"], len(x)
        kept = x
        if keep:
            kept = scratch.array("x", x.shape, x.dtype)
            kept[...] = x
        pieces = [slice(start, start + PIECE) for start in range(0, len(weight), PIECE)]
        # As many rows as OpenBLAS multiplies without packing them first; a power of two, so that they divide a piece.
        few = 1 << max(SMALL // (batch * self.units), 1).bit_length() - 1
        rows = few if 64 <= few <= PIECE else PIECE  # below 64, summing the products takes longer than they save
        count = (len(pieces) - 1) * (PIECE // rows) + len(_split(weight[pieces[-1]], rows))
        parts = scratch.passing.array("parts", (count, batch, self.units), x.dtype)

        def multiply(i: int) -> None:
            blocks, first = _split(weight[pieces[i]], rows), i * (PIECE // rows)
            columns = _split(kept[:, pieces[i]].T, rows).swapaxes(1, 2)
            np.matmul(columns, blocks, out=parts[first : first + len(blocks)])

        scratch.each(multiply, len(pieces))
        y = np.add.reduce(parts, axis=0, out=scratch.result(parts.shape[1:], x.dtype))
        y += params["bias"]

        def backward(dy: Array, grads: Tensors, need_dx: bool) -> Array | None:
            dxt = scratch.result(kept.shape[::-1], dy.dtype) if need_dx else None
            across = scratch.array("dy", dy.shape[::-1], dy.dtype)
            across[...] = dy.T  # W dy^T takes two thirds of the time of dy W^T

            def differentiate(i: int) -> None:
                piece = pieces[i]
                np.matmul(_split(kept[:, piece].T, few), dy, out=_split(grads["weight"][piece], few))
                if dxt is not None:
                    np.matmul(_split(weight[piece], few), across, out=_split(dxt[piece], few))

            scratch.each(differentiate, len(pieces))
            np.sum(dy, axis=0, out=grads["bias"])
            return None if dxt is None else dxt.T

        return y, backward


Layer = Conv2d | MaxPool2d | ReLU | Flatten | Dense
LAYERS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Conv2d, MaxPool2d, ReLU, Flatten, Dense)}


def _picture(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"{layer} on an input of shape {shape}: expected a picture (height, width, channels)")
    return shape[0], shape[1], shape[2]


def _split(x: Array, rows: int) -> Array:
    """Return x (D, n) as (D / rows, rows, n), a view; in one block where rows do not divide D."""
    return x.reshape(-1, rows if len(x) % rows == 0 else len(x), x.shape[1])


def _sums(dy: Array) -> Array:
    """Return the sum of dy (B, H, W, O) over all but the last axis, as a product: ten times as fast as np.sum."""
    rows = dy.transpose(1, 2, 0, 3).reshape(-1, dy.shape[3])
    sums: Array = np.ones(len(rows), dy.dtype) @ rows
    return sums
