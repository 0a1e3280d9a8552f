"""The layers: each is a frozen record of its settings, which says what its kernel is (`edgemeta.nn.kernels.kernel`).

Shapes: B batch, H height, W width, C channels in, O channels or units out. Pictures are (B, H, W, C).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from edgemeta.errors import InputError
from edgemeta.nn.kernels import conv, dense, pool, simple, tiled
from edgemeta.nn.kernels.cooktoom import KERNELS, TILE
from edgemeta.nn.kernels.kernel import Kernel
from edgemeta.nn.layout import Shape

TILED_FROM = 32  # numbers in a row of a receptive field, below which tiles of 4x4 do not pay


class Layer(Protocol):
    """What a network is made of. prefix: of its tensors' names in the layout, before a number.

    A frozen dataclass whose fields are whole numbers, if it is to be described in a model file, and read from there by
    its row in `LAYERS`.
    """

    prefix: ClassVar[str]

    def shapes(self, shape: Shape, /) -> tuple[Shape, dict[str, Shape]]:
        """Return the output's shape and the tensors' shapes, by name, for an input's; raise InputError if it cannot."""
        ...

    def computed_by(self, shape: Shape, dtype: Any, /) -> Kernel:
        """Return how it is computed for inputs of this shape and dtype."""
        ...


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

    def computed_by(self, shape: Shape, dtype: Any) -> Kernel:
        """Return the fastest way to convolve pictures (H, W, C), without the bias, which is a step of its own (`Bias`).

        The plain one serves everything.
        """
        height, width, channels = shape
        small = min(height, width) < TILE or channels * self.kernel < TILED_FROM
        weight = (self.kernel, self.kernel, channels, self.filters)
        if dtype != np.float32 or self.kernel not in KERNELS or small:
            return conv.kernel(weight)
        return tiled.kernel(weight)


class Bias:
    """A convolution's bias, which the network may add after a pool; not a layer to build with."""

    prefix: ClassVar[str] = "bias"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the unchanged shape, and the tensor's for an input (H, W, C)."""
        return shape, {"bias": shape[-1:]}

    def computed_by(self, _shape: Shape, _dtype: Any) -> Kernel:
        """Return the addition."""
        return simple.bias()


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

    def computed_by(self, _shape: Shape, _dtype: Any) -> Kernel:
        """Return the pool."""
        return pool.kernel(self.size)


@dataclass(frozen=True)
class ReLU:
    """max(x, 0), of any shape."""

    prefix: ClassVar[str] = "relu"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the unchanged shape; there are no tensors."""
        return shape, {}

    def computed_by(self, _shape: Shape, _dtype: Any) -> Kernel:
        """Return the cut below zero."""
        return simple.relu()


@dataclass(frozen=True)
class Flatten:
    """(B, ...) to (B, D), in the order (H, W, C)."""

    prefix: ClassVar[str] = "flatten"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return (D,); there are no tensors."""
        return (math.prod(shape),), {}

    def computed_by(self, _shape: Shape, _dtype: Any) -> Kernel:
        """Return the view."""
        return simple.flatten()


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

    def computed_by(self, _shape: Shape, _dtype: Any) -> Kernel:
        """Return the map (B, D) to (B, units)."""
        return dense.kernel(self.units)


LAYERS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Conv2d, MaxPool2d, ReLU, Flatten, Dense)}


def _picture(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"{layer} on an input of shape {shape}: expected a picture (height, width, channels)")
    return shape[0], shape[1], shape[2]
