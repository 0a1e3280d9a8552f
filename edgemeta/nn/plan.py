"""A network's work on batches of one size: all memory and views made beforehand, so that a step only fills them.

The layers that see pictures (the head) take the batch in chunks, each as far as it goes while it is in the cache; the
others (the tail) take the whole batch, so that their large weights are read once. Each chunk of the head has its own
gradient, and they are summed in order, so that the bits do not depend on who worked on which chunk.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgemeta.nn.kernels.kernel import Array, Backward, Gradients, Kernel, Prepared, Tensors
from edgemeta.nn.kernels.workspace import Workspace
from edgemeta.nn.layers import Bias, Conv2d, Layer, MaxPool2d, ReLU
from edgemeta.nn.layout import Layout, Shape

Step = tuple[Layer, dict[str, str]]  # a layer, and for each of its tensors' own names the name in the layout
# A chunk is as many samples as have so many numbers in their largest picture, a megabyte: it stays near the processor,
# and is enough to outweigh what a call costs. It is 8 samples of cnn: a batch of 32 keeps a board's four cores busy.
CHUNK_NUMBERS, CHUNK_SAMPLES = 1 << 18, 32


@dataclass(frozen=True, eq=False)
class Network:
    """What a plan needs to know: the steps of head and tail, what each takes of a sample, and all tensors' shapes.

    chunk: how many samples the head takes at once.
    """

    head: Sequence[Step]
    tail: Sequence[Step]
    inputs: Shape
    between: Shape
    tensors: Mapping[str, Shape]
    chunk: int


class Chain:
    """Steps prepared one after the other, each for where the one before leaves its output.

    Raises RuntimeError, for whoever writes a layer, when one takes a second result in a pass.
    """

    def __init__(self, steps: Sequence[Step], x: Array, scratch: Workspace, kept: Workspace | None) -> None:
        self._steps, self._scratch = steps, scratch
        self.kernels: list[Kernel] = []
        self._prepared: list[Prepared] = []
        self._backwards: list[Backward] = []  # from the last to the first
        for i, (layer, _) in enumerate(steps):
            self.kernels.append(layer.computed_by(x.shape[1:], x.dtype))
            with self._one_result(i):
                self._prepared.append(self.kernels[i].prepare(x, scratch, kept and kept.part(i)))
            x = self._prepared[i].y
        self.y = x

    def prepare_backward(self, dy: Array, need_dx: bool) -> Array | None:
        """Return where dx will be, given where dy will be; as far as anything before needs it."""
        dx: Array | None = dy
        for i in range(len(self._prepared) - 1, -1, -1):
            needed = need_dx or weights_before(self._steps, i)
            assert dx is not None  # it was needed
            with self._one_result(i):
                dx, backward = self._prepared[i].prepare_backward(dx, needed)
            self._backwards.append(backward)
            if not needed:
                return None
        return dx

    def forward(self, params: Sequence[Tensors]) -> None:
        """Work x into y. params: each step's."""
        for prepared, mine in zip(self._prepared, params, strict=True):
            prepared.forward(mine)

    def backward(self, params: Sequence[Tensors], grads: Sequence[Gradients]) -> None:
        """Work dy into dx and the gradients. grads: where each step's are to go."""
        for backward, mine, to in zip(self._backwards, reversed(params), reversed(grads), strict=False):
            backward(mine, to)

    @contextmanager
    def _one_result(self, i: int) -> Iterator[None]:
        """Refuse a second result of the i-th step: it would be the buffer that the step reads."""
        before = self._scratch.results
        yield
        if self._scratch.results > before + 1:
            raise RuntimeError(
                f"{self._steps[i][0]} takes {self._scratch.results - before} results in one pass, and the second one "
                "would lie where its input is: call scratch.result once, and scratch.array or scratch.samples for more"
            )


class Plan:
    """The passes of one network for one batch size and dtype.

    keep: whether backward passes will come. It holds parts of the workspace only, so that the workspace may hold it.
    """

    def __init__(self, network: Network, batch: int, dtype: Any, space: Workspace, keep: bool) -> None:
        self._network = network
        self._need = [keep and weights_before(network.head, i) for i in range(len(network.head))]
        self._scratch, self._working = space.part("plan"), space.part("working")
        self._chunks = chunks(batch, network.chunk) if network.head else []
        self._joined = self._scratch.array("joined", (batch, *network.between), dtype)
        self._last = Chain(network.tail, self._joined, space.part("passing"), space.part("tail") if keep else None)
        _refuse_forms(network.tail, self._last.kernels)
        between = None
        if keep:
            self._dy = self._scratch.array("dy", self._last.y.shape, dtype)
            between = self._last.prepare_backward(self._dy, bool(network.head))
        self._inputs, self._chains = [], []
        for i, chunk in enumerate(self._chunks):
            x = space.lane(i).array("inputs", (chunk.stop - chunk.start, *network.inputs), dtype)
            self._inputs.append(x)
            self._chains.append(Chain(network.head, x, space.lane(i), space.part(i) if keep else None))
            if between is not None:
                self._chains[i].prepare_backward(between[chunk], False)
        self._kernels = self._chains[0].kernels if self._chains else []  # of the head
        if keep and self._chains:
            # Each chunk's gradients, in the weights' working form; the first chunk's become the sum of all.
            working = Layout(tuple(self._working_shapes()))
            self._parts = self._scratch.array("parts", (len(self._chunks), working.size), dtype)
            self._part_grads = [_of_each(network.head, working.views(part)) for part in self._parts]

    def run(
        self, views: Tensors, x: Array, fill: Callable[[Array, Array], None]
    ) -> tuple[Array, Callable[[Array, Gradients], None]]:
        """Return the outputs of x: (B, ...), and backward(dy, grads); the next run overwrites what both need.

        views: the parameters by name. fill(x, inputs): writes samples as the network's inputs. grads: where gradients
        are to go, by name.
        """
        head, tail = _of_each(self._network.head, views), _of_each(self._network.tail, views)
        head = [
            kernel.to_working(mine, need_dx, self._working.part(i))
            for i, (kernel, mine, need_dx) in enumerate(zip(self._kernels, head, self._need, strict=True))
        ]
        if not self._chunks:
            fill(x, self._joined)

        def work(i: int) -> None:
            fill(x[self._chunks[i]], self._inputs[i])
            self._chains[i].forward(head)
            self._joined[self._chunks[i]] = self._chains[i].y

        self._scratch.each(work, len(self._chunks))
        self._last.forward(tail)

        def backward(dy: Array, grads: Gradients) -> None:
            self._dy[...] = dy
            self._last.backward(tail, _of_each(self._network.tail, grads))
            if self._chunks:
                self._scratch.each(lambda i: self._chains[i].backward(head, self._part_grads[i]), len(self._chunks))
                for part in self._parts[1:]:
                    self._parts[0] += part
                self._from_working(_of_each(self._network.head, grads))

        return self._last.y, backward

    def _working_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yield the name of each of the head's tensors, and its shape in the working form."""
        for (_, keys), kernel in zip(self._network.head, self._kernels, strict=True):
            shapes = kernel.working_shapes({tensor: self._network.tensors[key] for tensor, key in keys.items()})
            yield from ((keys[tensor], shape) for tensor, shape in shapes.items())

    def _from_working(self, grads: Sequence[Gradients]) -> None:
        """Write the head's gradients, given their sums in the working form."""
        for kernel, sums, to in zip(self._kernels, self._part_grads[0], grads, strict=True):
            kernel.from_working(sums, to, self._working)


def weights_before(steps: Sequence[Step], i: int) -> bool:
    """Return whether any step before the i-th has a gradient, for which the i-th's dx is needed."""
    return any(keys for _, keys in steps[:i])


def chunk_samples(pictures: Sequence[Shape]) -> int:
    """Return how many samples make a chunk, given the shapes of their pictures."""
    largest = max(math.prod(shape) for shape in pictures)
    return max(1, min(CHUNK_NUMBERS // largest, CHUNK_SAMPLES))


def chunks(batch: int, most: int) -> list[slice]:
    """Return slices of at most so many samples, as equal as can be."""
    count = -(-batch // most)
    return [slice(batch * i // count, batch * (i + 1) // count) for i in range(count)]


def pool_first(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with a convolution's bias on its own, and each max-pool before the bias and the ReLU it follows.

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


def _refuse_forms(steps: Sequence[Step], kernels: Sequence[Kernel]) -> None:
    """Raise RuntimeError, for whoever writes a layer, where a step of the tail has a working form."""
    for (layer, _), kernel in zip(steps, kernels, strict=True):
        if kernel != Kernel(kernel.prepare):
            raise RuntimeError(
                f"{layer} comes after the pictures, where gradients are written to where they are wanted: "
                "its kernel must take its tensors as they are, without a working form"
            )


def _of_each(steps: Sequence[Step], named: Mapping[str, Any]) -> list[Gradients]:
    """Return for each step its own tensors out of those `named` as in the layout."""
    return [{tensor: named[key] for tensor, key in keys.items()} for _, keys in steps]
