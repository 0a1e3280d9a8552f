"""The layers: each is a frozen record of its settings, which can be prepared to work (`edgemeta.nn.kernels.kernel`).

Shapes: B batch, H height, W width, C channels in, O channels or units out. Pictures are (B, H, W, C).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from edgemeta.errors import InputError
from edgemeta.nn.kernels import conv, dense, tiled
from edgemeta.nn.kernels.cooktoom import KERNELS, TILE
from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace, in_one_piece
from edgemeta.nn.layout import Shape

TILED_FROM = 32  # numbers in a row of a receptive field, below which tiles of 4x4 do not pay


class Method(Protocol):
    """A way to convolve: `edgemeta.nn.kernels.conv`, where these are explained, or `edgemeta.nn.kernels.tiled`."""

    def working_shape(self, weight: Shape, /) -> Shape: ...
    def to_working(self, weight: Array, need_dx: bool, scratch: Workspace, /) -> Tensors: ...
    def from_working(self, dworking: Array, dweight: Array, scratch: Workspace, /) -> None: ...
    def prepare(self, x: Array, weight: Shape, scratch: Workspace, kept: Workspace | None, /) -> Prepared: ...


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

    def method(self, shape: Shape, dtype: Any) -> Method:
        """Return the fastest way to convolve pictures of `shape` (H, W, C); the plain one serves everything."""
        height, width, channels = shape
        small = min(height, width) < TILE or channels * self.kernel < TILED_FROM
        return conv if dtype != np.float32 or self.kernel not in KERNELS or small else tiled

    def prepare(self, x: Array, scratch: Workspace, kept: Workspace | None = None) -> Prepared:
        """Convolve x: (B, H, W, C) to (B, H, W, filters), without the bias, which is a step of its own (`Bias`).

        params and grads are in the working form of `method`, which is for the caller to make and to take back.
        """
        weight = (self.kernel, self.kernel, x.shape[3], self.filters)
        return self.method(x.shape[1:], x.dtype).prepare(x, weight, scratch, kept)


@dataclass(frozen=True)
class Bias:
    """A convolution's bias, which the network may add after a pool; not a layer to build with."""

    def prepare(self, x: Array, scratch: Workspace, _kept: Workspace | None = None) -> Prepared:
        """Add one number for each channel to x: (B, H, W, C)."""
        y = scratch.result(x.shape, x.dtype)
        each = np.empty((len(x), x.shape[3]), x.dtype)  # the biases for every sample: long rows are added faster
        beside, sums = x.transpose(1, 2, 0, 3), y.transpose(1, 2, 0, 3)

        def forward(params: Tensors) -> None:
            each[...] = params["bias"]
            np.add(beside, each, out=sums)

        def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
            whole, tidy = in_one_piece(dy, dy.shape[1:3], scratch)
            rows = whole.reshape(-1, dy.shape[3])
            ones = np.ones(len(rows), dy.dtype)

            def backward(_: Tensors, grads: Gradients) -> None:
                tidy()
                np.matmul(ones, rows, out=grads["bias"])  # ten times as fast as np.sum

            return dy, backward

        return Prepared(y, forward, prepare_backward)


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

    def prepare(self, x: Array, scratch: Workspace, kept: Workspace | None = None) -> Prepared:
        """Pool x: (B, H, W, C) to (B, H // size, W // size, C)."""
        first, *others = self._positions(x)
        y = scratch.result(first.shape, x.dtype)
        larger = [kept.samples(i, y.shape, np.bool_) for i in range(len(others))] if kept else []

        def forward(_: Tensors) -> None:
            before = first
            for i, place in enumerate(others):
                if kept:
                    np.greater(place, before, out=larger[i])
                before = np.maximum(before, place, out=y)
            if not others:
                y[...] = first

        def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
            dx = scratch.result(x.shape, dy.dtype)
            first, *others = self._positions(dx)
            gone, won = (scratch.samples(key, dy.shape, np.bool_) for key in ("gone", "won"))

            def backward(_params: Tensors, _grads: Gradients) -> None:
                if x.shape[1] % self.size or x.shape[2] % self.size:
                    dx.fill(0)  # what no tile covers
                # From the last place to the first: whoever was larger than all before it takes the gradient, so that
                # of equal values the first one does. Kept masks of one byte are read faster than x would be again.
                gone.fill(False)
                for place, mask in zip(reversed(others), reversed(larger), strict=True):
                    np.greater(mask, gone, out=won)
                    np.multiply(dy, won, out=place)
                    np.logical_or(gone, mask, out=gone)
                np.logical_not(gone, out=won)
                np.multiply(dy, won, out=first)

            return dx, backward

        return Prepared(y, forward, prepare_backward)

    def _positions(self, x: Array) -> list[Array]:
        """Return one strided view of x for each place in a tile, in reading order."""
        height, width = (size // self.size * self.size for size in x.shape[1:3])
        return [x[:, i : height : self.size, j : width : self.size] for i in range(self.size) for j in range(self.size)]


@dataclass(frozen=True)
class ReLU:
    """max(x, 0), of any shape."""

    prefix: ClassVar[str] = "relu"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the unchanged shape; there are no tensors."""
        return shape, {}

    def prepare(self, x: Array, scratch: Workspace, kept: Workspace | None = None) -> Prepared:
        """Cut x off below zero."""
        y = scratch.result(x.shape, x.dtype)
        # np.maximum with a scalar takes twice the time; in pictures, (B, 1, 1, C) lies beside what is in one piece.
        zeros = np.zeros((len(x) if x.ndim == 4 else 1, *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype)
        positive = (kept or scratch).samples("positive", x.shape, np.bool_)

        def forward(_: Tensors) -> None:
            np.maximum(x, zeros, out=y)
            if kept:
                np.greater(y, 0, out=positive)

        def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
            dx = scratch.result(dy.shape, dy.dtype)

            def backward(_params: Tensors, _grads: Gradients) -> None:
                np.multiply(dy, positive, out=dx)

            return dx, backward

        return Prepared(y, forward, prepare_backward)


@dataclass(frozen=True)
class Flatten:
    """(B, ...) to (B, D), in the order (H, W, C)."""

    prefix: ClassVar[str] = "flatten"

    def shapes(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return (D,); there are no tensors."""
        return (math.prod(shape),), {}

    def prepare(self, x: Array, _scratch: Workspace, _kept: Workspace | None = None) -> Prepared:
        """Flatten all but the batch's axis: of what lies in this order already, nothing is copied."""
        assert x.flags.c_contiguous, "a copy would be made once, and not again when x is filled anew"

        def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
            return dy.reshape(x.shape), lambda _params, _grads: None  # splitting an axis gives a view of any array

        return Prepared(x.reshape(len(x), math.prod(x.shape[1:])), lambda _: None, prepare_backward)


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

    def prepare(self, x: Array, scratch: Workspace, kept: Workspace | None = None) -> Prepared:
        """Map x: (B, D) to (B, units)."""
        return dense.prepare(x, self.units, scratch, kept)


Layer = Conv2d | MaxPool2d | ReLU | Flatten | Dense
LAYERS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Conv2d, MaxPool2d, ReLU, Flatten, Dense)}


def _picture(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"{layer} on an input of shape {shape}: expected a picture (height, width, channels)")
    return shape[0], shape[1], shape[2]
