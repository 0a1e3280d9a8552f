"""A network: layers, one after the other, over one flat parameter vector."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn.layers import LAYERS, Backward, Layer
from edgemeta.nn.layout import Layout, Shape, Vector
from edgemeta.nn.losses import LOSSES
from edgemeta.nn.workspace import Workspace

Array = NDArray[Any]


@dataclass(frozen=True)
class Normalization:
    """How samples become network inputs: (value - mean) / std, where uint8 pixels are first divided by 255.

    Fixed constants, never data-set statistics: no device could compute those.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise InputError(f"{self}: expected finite numbers, and a standard deviation above 0")


RAW = Normalization()
PICTURES = Normalization(mean=0.5, std=0.25)


class Model:
    """A network as functions of a parameter vector; it holds no parameters itself.

    layers: in order; the last one's output are logits (or regression outputs). input_shape: of one sample, without
    the batch's axis. loss: "cross-entropy" (integer labels) or "mse". The dtype of theta decides the dtype of the
    work: float32, or float64 for checks.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        loss: str = "cross-entropy",
        normalization: Normalization = RAW,
        name: str = "custom",
    ) -> None:
        if loss not in LOSSES:
            raise InputError(f"unknown loss '{loss}': expected one of {', '.join(LOSSES)}")
        self.layers, self.input_shape, self.name = tuple(layers), tuple(map(int, input_shape)), name
        if not self.input_shape or min(self.input_shape) < 1:
            raise InputError(f"an input shape of {self.input_shape}: expected one or more sizes, each 1 or more")
        self.loss, self.normalization = loss, normalization
        self._keys: list[dict[str, str]] = []  # for each layer: its own tensor name -> name in the layout
        entries: list[tuple[str, Shape]] = []
        shape, seen = self.input_shape, Counter[str]()
        for layer in self.layers:
            shape, tensors = layer.shapes(shape)
            seen[layer.prefix] += 1
            keys = {tensor: f"{layer.prefix}{seen[layer.prefix]}.{tensor}" for tensor in tensors}
            self._keys.append(keys)
            entries += [(keys[tensor], size) for tensor, size in tensors.items()]
        if len(shape) != 1 or not entries:
            raise InputError(
                f"a network must end in one axis of outputs and have weights: this one ends in shape {shape}"
            )
        self.outputs, self.layout = shape[0], Layout(tuple(entries))

    def init(self, seed: int | np.random.Generator = 0) -> Vector:
        """Return new float32 parameters: He initialisation (He et al., 2015), biases zero."""
        rng = np.random.default_rng(seed)
        theta = np.zeros(self.layout.size, np.float32)
        for name, view in self.layout.views(theta).items():
            if name.endswith(".weight"):
                fan_in = math.prod(view.shape[:-1])
                view[...] = rng.standard_normal(view.shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
        return theta

    def forward(self, theta: Vector, x: Array, workspace: Workspace | None = None) -> Array:
        """Return the outputs (logits) of x: (B, *input_shape), as a new array (B, outputs)."""
        h, _ = self._forward(self.layout.views(theta), self._inputs(x, theta.dtype), workspace or Workspace())
        return h.copy()

    def loss_and_grad(
        self, theta: Vector, x: Array, y: Array, workspace: Workspace | None = None, out: Vector | None = None
    ) -> tuple[float, Vector]:
        """Return the mean loss over a batch and its gradient with respect to theta, in `out` or else a new vector.

        x: (B, *input_shape), uint8 pixels or float; y: (B,) integer labels, or (B, outputs) targets for "mse".
        Raises InputError when a shape or a label does not fit the network.
        """
        if len(y) != len(x) or not len(x):
            raise InputError(
                f"a batch of {len(x)} samples with {len(y)} labels: expected as many labels, and one or more"
            )
        grad = np.empty_like(theta) if out is None else out
        grads = self.layout.views(grad)
        outputs, backwards = self._forward(
            self.layout.views(theta), self._inputs(x, theta.dtype), workspace or Workspace()
        )
        loss, dh = LOSSES[self.loss](outputs, y)
        for i in range(len(self.layers) - 1, -1, -1):
            mine = {tensor: grads[key] for tensor, key in self._keys[i].items()}
            dh = backwards[i](dh, mine, i > 0)  # type: ignore[assignment]   # None only from the first layer
        return loss, grad

    def describe(self) -> list[dict[str, Any]]:
        """Return the layer list, ready for JSON; `layers_from` reads it back."""
        return [{"layer": type(layer).__name__, **asdict(layer)} for layer in self.layers]

    def _forward(self, params: dict[str, Array], h: Array, workspace: Workspace) -> tuple[Array, list[Backward]]:
        backwards = []
        for i, layer in enumerate(self.layers):
            mine = {tensor: params[key] for tensor, key in self._keys[i].items()}
            h, backward = layer.forward(mine, h, workspace.part(i))
            backwards.append(backward)
        return h, backwards

    def _inputs(self, x: Array, dtype: Any) -> Array:
        if x.shape[1:] != self.input_shape:
            raise InputError(f"samples of shape {x.shape[1:]}: this network takes {self.input_shape}")
        scale = 255 if x.dtype == np.uint8 else 1
        mean, std = self.normalization.mean, self.normalization.std
        if scale == 1 and mean == 0 and std == 1:
            return x.astype(dtype, copy=False)
        h = x.astype(dtype)
        h -= dtype.type(mean * scale)
        h *= dtype.type(1 / (std * scale))
        return h


def layers_from(description: Any) -> list[Layer]:
    """Return the layers that `Model.describe` described; raises InputError for anything else."""
    try:
        rows = [dict(row) for row in description]
        return [LAYERS[row.pop("layer")](**{key: _whole(value) for key, value in row.items()}) for row in rows]
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"not a list of layers ({error}): expected rows such as {{'layer': 'Dense', 'units': 10}}"
        ) from None


def _whole(value: Any) -> int:
    if type(value) is not int or not abs(value) < 2**31:
        raise ValueError("a layer's sizes must be whole numbers, below 2**31")
    return value
