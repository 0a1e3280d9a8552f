"""A network: layers, one after the other, over one flat parameter vector."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemeta.errors import InputError
from edgemeta.nn.kernels.blas import note_threads
from edgemeta.nn.kernels.kernel import Array, Gradients
from edgemeta.nn.kernels.update import Descent
from edgemeta.nn.kernels.workspace import MAX_THREADS, Own, Workspace
from edgemeta.nn.layers import LAYERS, Dense, Layer
from edgemeta.nn.layout import Layout, Shape, Vector
from edgemeta.nn.losses import LOSSES, LossFunction
from edgemeta.nn.plan import Network, Plan, Step, chunk_samples, pool_first


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
    the batch's axis. loss: "cross-entropy" (integer labels), "mse", or another row of `edgemeta.nn.losses.LOSSES`. The
    dtype of theta decides the dtype of the work: float32, or float64 for checks. threads: how many share the work; any
    number gives the same bits. NumPy's BLAS should then have one thread (OPENBLAS_NUM_THREADS=1 before NumPy is
    imported). How it runs is in `edgemeta.nn.plan`; chunk: how many samples a thread takes at once.

    What a call works in is kept for the next one, each thread's apart, until the thread ends or `release` is called: a
    step of cnn at batch size 32 leaves 20 MB. A `workspace` that is given is used instead, and is the caller's.
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
        self.headed: Model | None = None  # of an embedding: with a head, as learners of numbered classes train it
        self.loss, self.normalization, self.threads = loss, normalization, threads
        steps: list[Step] = []
        entries: list[tuple[str, Shape]] = []
        shape, seen = self.input_shape, Counter[str]()
        head, pictures = 0, [self.input_shape]  # how many layers come before the pictures are flattened, and those
        for layer in self.layers:
            shape, tensors = layer.shapes(shape)
            seen[layer.prefix] += 1
            keys = {tensor: f"{layer.prefix}{seen[layer.prefix]}.{tensor}" for tensor in tensors}
            steps.append((layer, keys))
            entries += [(keys[tensor], size) for tensor, size in tensors.items()]
            if len(shape) == 3:
                head, pictures = len(steps), [*pictures, shape]
        if len(shape) != 1 or not entries:
            raise InputError(
                f"a network must end in one axis of outputs and have weights: this one ends in shape {shape}"
            )
        self.outputs, self.layout = shape[0], Layout(tuple(entries))
        self.chunk = chunk_samples(pictures)
        self._network = Network(
            pool_first(steps[:head]), steps[head:], self.input_shape, pictures[-1], dict(entries), self.chunk
        )
        self._own = Own()
        self._dense = {keys["weight"] for layer, keys in steps if isinstance(layer, Dense)}
        note_threads()

    @property
    def classifies(self) -> bool:
        """Whether its outputs are classes, by its loss: labels are whole numbers then, and there is an accuracy."""
        return LOSSES[self.loss].classifies

    @property
    def embeds(self) -> bool:
        """Whether its outputs are an embedding, by its loss: classes are then what a participant makes of them."""
        return LOSSES[self.loss].embeds

    @property
    def threads(self) -> int:
        """How many threads share the work; it may be changed between calls."""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise InputError(f"{threads} threads: expected 1 to {MAX_THREADS}")
        self._threads = threads
        if self.headed:
            self.headed.threads = threads

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_own"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _own=Own())  # copies share no memory, and files have none

    def release(self) -> None:
        """Free the memory that calls without a workspace left, of all threads; the next such call makes it anew."""
        self._own.release()
        if self.headed:
            self.headed.release()

    def scratch(self, workspace: Workspace | None = None) -> AbstractContextManager[Workspace]:
        """Give, for the time of a `with`, the workspace to compute in: this thread's own, when none is given."""
        return self._own.lend() if workspace is None else nullcontext(workspace)

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
        if not len(x):
            return np.empty((0, self.outputs), theta.dtype)
        with self.scratch(workspace) as space:
            return self._run(theta, x, space, keep=False)[0].copy()

    def loss_and_grad(
        self,
        theta: Vector,
        x: Array,
        y: Array,
        workspace: Workspace | None = None,
        out: Vector | None = None,
        loss: LossFunction | None = None,
    ) -> tuple[float, Vector]:
        """Return the mean loss over a batch and its gradient with respect to theta, in `out` or else a new vector.

        x: (B, *input_shape), uint8 pixels or float; y: (B,) integer labels, or (B, outputs) targets, as the loss takes.
        loss: another one than the network's own. Raises InputError when a shape or a label does not fit the network.
        """
        grad = np.empty_like(theta) if out is None else out
        function = loss or LOSSES[self.loss].function
        with self.scratch(workspace) as space:
            return self._backpropagate(theta, x, y, space, self.layout.views(grad), function), grad

    def descend(
        self,
        theta: Vector,
        x: Array,
        y: Array,
        rate: float,
        workspace: Workspace | None = None,
        start: Vector | None = None,
        out: Vector | None = None,
    ) -> tuple[float, Vector]:
        """Return the mean loss over a batch and start - rate * its gradient at theta, in `out` or else a new vector.

        As `loss_and_grad` and a subtraction, to the bit, but without a gradient of the network's size: the weights of
        a dense layer take their step piece by piece. start: theta, if not given; `out` may be either of the two. A call
        that is interrupted may leave `out` stepped in part.
        """
        start, out = theta if start is None else start, np.empty_like(theta) if out is None else out
        begin, end = self.layout.views(start), self.layout.views(out)
        descents = {name: Descent(begin[name], rate, end[name]) for name in begin}
        with self.scratch(workspace) as space:
            part = space.part("descent")
            small = {
                name: part.array(name, at.shape, at.dtype) for name, at in begin.items() if name not in self._dense
            }
            loss = self._backpropagate(theta, x, y, space, descents | small, LOSSES[self.loss].function)
            for name, gradient in small.items():
                descents[name].step(slice(None), gradient)
        return loss, out

    def describe(self) -> list[dict[str, Any]]:
        """Return the layer list, ready for JSON; `layers_from` reads it back."""
        return [{"layer": type(layer).__name__, **vars(layer)} for layer in self.layers]

    def _backpropagate(
        self, theta: Vector, x: Array, y: Array, space: Workspace, grads: Gradients, function: LossFunction
    ) -> float:
        """Return the mean loss, and send the gradient to `grads`, by the tensors' names."""
        if len(y) != len(x) or not len(x):
            raise InputError(
                f"a batch of {len(x)} samples with {len(y)} labels: expected as many labels, and one or more"
            )
        outputs, backward = self._run(theta, x, space, keep=True)
        loss, doutputs = function(outputs, y)
        backward(doutputs, grads)
        return loss

    def _run(
        self, theta: Vector, x: Array, space: Workspace, keep: bool
    ) -> tuple[Array, Callable[[Array, Gradients], None]]:
        if x.shape[1:] != self.input_shape:
            raise InputError(f"samples of shape {x.shape[1:]}: this network takes {self.input_shape}")
        views = self.layout.views(theta)
        space.threads = self.threads
        plan = space.plan(
            (self._network, self.threads, len(x), theta.dtype, keep),
            lambda: Plan(self._network, len(x), theta.dtype, space, keep),
        )
        return plan.run(views, x, self._fill)

    def _fill(self, x: Array, inputs: Array) -> None:
        """Write samples as the network's inputs: normalised, in its dtype."""
        scale = 255 if x.dtype == np.uint8 else 1
        mean, std = self.normalization.mean, self.normalization.std
        inputs[...] = x
        if scale != 1 or mean != 0 or std != 1:
            inputs -= inputs.dtype.type(mean * scale)
            inputs *= inputs.dtype.type(1 / (std * scale))


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
