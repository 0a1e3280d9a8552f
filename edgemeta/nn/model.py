"""A network: layers, one after the other, over one flat parameter vector."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn.blas import note_threads
from edgemeta.nn.layers import LAYERS, Backward, Bias, Conv2d, Layer, MaxPool2d, ReLU, Tensors
from edgemeta.nn.layout import Layout, Shape, Vector
from edgemeta.nn.losses import LOSSES
from edgemeta.nn.workspace import MAX_THREADS, Workspace

Array = NDArray[Any]
Step = tuple[Layer | Bias, dict[str, str]]  # a layer, and for each of its tensors' own names the name in the layout
CHUNK = 16  # samples: few enough for the cache, and many enough to outweigh what a call costs


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
    work: float32, or float64 for checks. threads: how many share the work; any number gives the same bits. NumPy's
    BLAS should then have one thread (OPENBLAS_NUM_THREADS=1 before NumPy is imported).

    How it runs: the layers that see pictures (the head) take the batch in chunks, each as far as it goes while it is in
    the cache; the others (the tail) take the whole batch, so that their large weights are read once. Each chunk of the
    head has its own gradient, and they are summed in order.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        loss: str = "cross-entropy",
        normalization: Normalization = RAW,
        name: str = "custom",
        threads: int = 1,
    ) -> None:
        if loss not in LOSSES:
            raise InputError(f"unknown loss '{loss}': expected one of {', '.join(LOSSES)}")
        self.layers, self.input_shape, self.name = tuple(layers), tuple(map(int, input_shape)), name
        if not self.input_shape or min(self.input_shape) < 1:
            raise InputError(f"an input shape of {self.input_shape}: expected one or more sizes, each 1 or more")
        self.loss, self.normalization, self.threads = loss, normalization, threads
        steps: list[Step] = []
        entries: list[tuple[str, Shape]] = []
        shape, seen = self.input_shape, Counter[str]()
        pictures, entries_of_head = 0, 0  # how many layers and tensors come before the pictures are flattened
        for layer in self.layers:
            shape, tensors = layer.shapes(shape)
            seen[layer.prefix] += 1
            keys = {tensor: f"{layer.prefix}{seen[layer.prefix]}.{tensor}" for tensor in tensors}
            steps.append((layer, keys))
            entries += [(keys[tensor], size) for tensor, size in tensors.items()]
            if len(shape) == 3:
                pictures, entries_of_head, self._between = len(steps), len(entries), shape
        if len(shape) != 1 or not entries:
            raise InputError(
                f"a network must end in one axis of outputs and have weights: this one ends in shape {shape}"
            )
        self.outputs, self.layout = shape[0], Layout(tuple(entries))
        self._head, self._tail = _pool_first(steps[:pictures]), steps[pictures:]
        self._head_layout = Layout(tuple(entries[:entries_of_head]))

        note_threads()

    @property
    def threads(self) -> int:
        """How many threads share the work; it may be changed between calls."""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise InputError(f"{threads} threads: expected 1 to {MAX_THREADS}")
        self._threads = threads

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
        space = self._space(workspace)
        params = self.layout.views(theta)

        def head(samples: Array, _: int) -> Array:
            # No backward pass will come, so every chunk may overwrite what the one before left.
            return _forward(self._head, params, samples, space.passing.part("head"), keep=False)[0]

        h = self._head_outputs(head, x, theta.dtype, space)
        if not len(x):
            return np.empty((0, self.outputs), theta.dtype)
        return _forward(self._tail, params, h, space.part("tail"), keep=False)[0].copy()

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
        params, grads = self.layout.views(theta), self.layout.views(grad)
        space = self._space(workspace)
        chunks = _chunks(len(x))
        head_backwards: list[list[Backward]] = [[]] * len(chunks)

        def head(samples: Array, i: int) -> Array:
            h, head_backwards[i] = _forward(self._head, params, samples, space.part(i))
            return h

        h, backwards = _forward(self._tail, params, self._head_outputs(head, x, theta.dtype, space), space.part("tail"))
        loss, dh = LOSSES[self.loss](h, y)
        dh = _backward(self._tail, backwards, dh, grads, bool(self._head))
        if self._head:
            size = self._head_layout.size
            parts = space.array("gradients", (len(chunks), size), theta.dtype)
            dhead = space.samples("dhead", dh.shape, dh.dtype)
            dhead[...] = dh  # dh is a layer's result, and the first chunk's results would overwrite it

            def back(i: int) -> None:
                _backward(self._head, head_backwards[i], dhead[chunks[i]], self._head_layout.views(parts[i]), False)

            space.each(back, len(chunks))
            np.add.reduce(parts, axis=0, out=grad[:size])
        return loss, grad

    def describe(self) -> list[dict[str, Any]]:
        """Return the layer list, ready for JSON; `layers_from` reads it back."""
        return [{"layer": type(layer).__name__, **asdict(layer)} for layer in self.layers]

    def _space(self, workspace: Workspace | None) -> Workspace:
        space = workspace or Workspace()
        space.threads = self.threads
        return space

    def _head_outputs(self, head: Callable[[Array, int], Array], x: Array, dtype: Any, space: Workspace) -> Array:
        """Return what the tail gets: head(inputs, i) of each chunk of x, put together again."""
        if x.shape[1:] != self.input_shape:
            raise InputError(f"samples of shape {x.shape[1:]}: this network takes {self.input_shape}")
        if not self._head:
            return self._inputs(x, dtype, space)
        chunks = _chunks(len(x))
        joined = space.array("joined", (len(x), *self._between), dtype)

        def run(i: int) -> None:
            joined[chunks[i]] = head(self._inputs(x[chunks[i]], dtype, space.passing), i)

        space.each(run, len(chunks))
        return joined

    def _inputs(self, x: Array, dtype: Any, space: Workspace) -> Array:
        scale = 255 if x.dtype == np.uint8 else 1
        mean, std = self.normalization.mean, self.normalization.std
        if scale == 1 and mean == 0 and std == 1:
            return x.astype(dtype, copy=False)
        h = space.array("inputs", x.shape, dtype)
        h[...] = x
        h -= dtype.type(mean * scale)
        h *= dtype.type(1 / (std * scale))
        return h


def _forward(
    steps: Sequence[Step], params: Tensors, h: Array, space: Workspace, keep: bool = True
) -> tuple[Array, list[Backward]]:
    backwards = []
    for i, (layer, keys) in enumerate(steps):
        mine = {tensor: params[key] for tensor, key in keys.items()}
        h, backward = layer.forward(mine, h, space.part(i), keep)
        backwards.append(backward)
    return h, backwards


def _backward(steps: Sequence[Step], backwards: Sequence[Backward], dh: Array, grads: Tensors, need_dx: bool) -> Array:
    for i in range(len(steps) - 1, -1, -1):
        mine = {tensor: grads[key] for tensor, key in steps[i][1].items()}
        dh = backwards[i](dh, mine, need_dx or i > 0)  # type: ignore[assignment]   # None only if not needed
    return dh


def _pool_first(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with each max-pool before the bias and the ReLU that it follows.

    Neither changes which number of a tile is the largest, so the outputs keep their bits, and a quarter of the numbers
    is left for both. (Where adding the bias rounds two numbers to one, the larger of them now gets the gradient.)
    """
    ordered: list[Step] = []
    for layer, keys in steps:
        if isinstance(layer, Conv2d):
            ordered += [(layer, {"weight": keys["weight"]}), (Bias(), {"bias": keys["bias"]})]
        else:
            at = len(ordered)
            while isinstance(layer, MaxPool2d) and at and isinstance(ordered[at - 1][0], Bias | ReLU):
                at -= 1
            ordered.insert(at, (layer, keys))
    return ordered


def _chunks(batch: int) -> list[slice]:
    """Return slices of at most CHUNK samples, as equal as can be."""
    count = -(-batch // CHUNK)
    return [slice(batch * i // count, batch * (i + 1) // count) for i in range(count)]


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
