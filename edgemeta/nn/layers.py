"""The layers: each is a frozen record of its settings, and a forward function that returns its own backward.

    y, backward = layer.forward(params, x, scratch)
    dx = backward(dy, grads, need_dx)

`params` and `grads` map the layer's own tensor names ("weight", "bias") to views of the flat vectors; backward
writes each gradient once. The closure is the cache: there is no state in a layer, and it dies when dropped.
Arrays that forward and backward return may lie in `scratch`, and last until the scratch is used for the next batch.
Shapes: B batch, H height, W width, C channels in, O channels or units out. Pictures are (B, H, W, C).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn.conv import convolve
from edgemeta.nn.layout import Shape
from edgemeta.nn.workspace import Workspace

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Backward = Callable[[Array, Tensors, bool], Array | None]


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

    def forward(self, params: Tensors, x: Array, scratch: Workspace) -> tuple[Array, Backward]:
        """Convolve x: (B, H, W, C) to (B, H, W, filters)."""
        y, back = convolve(x, params["weight"], scratch)
        y += params["bias"]

        def backward(dy: Array, grads: Tensors, need_dx: bool) -> Array | None:
            grads["weight"][...], dx = back(dy, need_dx)
            np.sum(dy, axis=(0, 1, 2), out=grads["bias"])
            return dx

        return y, backward


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

    def forward(self, _: Tensors, x: Array, scratch: Workspace) -> tuple[Array, Backward]:
        """Pool x: (B, H, W, C) to (B, H // size, W // size, C)."""
        tiles = self._positions(x)
        y = scratch.array("y", tiles[0].shape, x.dtype)
        y[...] = tiles[0]
        for tile in tiles[1:]:
            np.maximum(y, tile, out=y)

        def backward(dy: Array, _: Tensors, _need: bool) -> Array:
            dx = scratch.array("dx", x.shape, dy.dtype)
            if x.shape[1] % self.size or x.shape[2] % self.size:
                dx.fill(0)  # what no tile covers
            rest: Array = dy.copy()  # what no position has taken yet: of equal values, the first gets the gradient
            for tile, dtile in zip(tiles, self._positions(dx), strict=True):
                np.multiply(rest, tile == y, out=dtile)
                rest -= dtile
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

    def forward(self, _: Tensors, x: Array, scratch: Workspace) -> tuple[Array, Backward]:
        """Cut x off below zero."""
        y: Array = np.maximum(x, 0, out=scratch.array("y", x.shape, x.dtype))

        def backward(dy: Array, _: Tensors, _need: bool) -> Array:
            dx: Array = np.multiply(dy, y > 0, out=scratch.array("dx", y.shape, dy.dtype))
            return dx

        return y, backward


@dataclass(frozen=True)
class Flatten:
    """(B, ...) to (B, D), in the order in which the numbers lie in memory: (H, W, C)."""

    prefix: ClassVar[str] = "flatten"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return (D,); there are no tensors."""
        return (math.prod(shape),), {}

    def forward(self, _: Tensors, x: Array, _scratch: Workspace) -> tuple[Array, Backward]:
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

    def forward(self, params: Tensors, x: Array, scratch: Workspace) -> tuple[Array, Backward]:
        """Map x: (B, D) to (B, units)."""
        weight = params["weight"]
        y = np.matmul(x, weight, out=scratch.array("y", (len(x), self.units), x.dtype))
        y += params["bias"]

        def backward(dy: Array, grads: Tensors, need_dx: bool) -> Array | None:
            np.matmul(x.T, dy, out=grads["weight"])
            np.sum(dy, axis=0, out=grads["bias"])
            return np.matmul(dy, weight.T, out=scratch.array("dx", x.shape, dy.dtype)) if need_dx else None

        return y, backward


Layer = Conv2d | MaxPool2d | ReLU | Flatten | Dense
LAYERS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Conv2d, MaxPool2d, ReLU, Flatten, Dense)}


def _picture(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"{layer} on an input of shape {shape}: expected a picture (height, width, channels)")
    return shape[0], shape[1], shape[2]
