"""How a layer is computed: prepared once for where its input lies in memory, and then run many times.

    y, forward, prepare_backward = kernel.prepare(x, scratch, kept)
    dx, backward = prepare_backward(dy, need_dx)
    forward(params)             reads x and writes y
    backward(params, grads)     reads dy, writes dx (which may be None if it is not needed) and each gradient once

Where dy will be is known when the later layers are prepared, so the backward pass is prepared after them.

x, y, dy and dx are places in memory, which stay where they are, so that views of them are made only once: to make them
in each step took a tenth of a step of cnn, and a quarter of one of cnn-small. `params` and `grads` map the layer's own
tensor names ("weight", "bias") to arrays; in grads, a `Descent` may stand for the gradient of a dense layer's weights.
What the backward pass needs is in the closures; a layer has no state. `scratch` is written over by the next layer: it
alone reads y or dx. `scratch.result` gives y, and in the backward pass dx, and is called once for each. What the
backward pass needs of the forward one lies in `kept`, which is this layer's own, or None when no backward pass will
come.

A kernel of pictures may take its tensors in a form of its own, made once a step for all chunks of a batch, and leave
gradients in that form, which are summed over the chunks before they are taken back. Three functions say so, and leave
everything as it is by default:

    working_shapes(shapes)                  of the layer's tensors in that form, and so of their gradients, by name
    to_working(tensors, need_dx, scratch)   what forward and backward get as `params`; it may be more than the tensors
    from_working(sums, grads, scratch)      writes each tensor's gradient, given the sums in that form
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgemeta.nn.kernels.workspace import Workspace
from edgemeta.nn.layout import Shape

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Gradients = Mapping[str, Any]  # where the gradients are to go: arrays, or a `Descent`
Shapes = Mapping[str, Shape]
Backward = Callable[[Tensors, Gradients], None]


class Prepared(NamedTuple):
    """What `prepare` returns."""

    y: Array
    forward: Callable[[Tensors], None]
    prepare_backward: Callable[[Array, bool], tuple[Array | None, Backward]]


def _same_shapes(shapes: Shapes) -> Shapes:
    return shapes


def _same_tensors(tensors: Tensors, _need_dx: bool, _scratch: Workspace) -> Tensors:
    return tensors


def _copy(sums: Tensors, grads: Gradients, _scratch: Workspace) -> None:
    for name, total in sums.items():
        grads[name][...] = total


class Kernel(NamedTuple):
    """The functions described above; what a layer's `computed_by` returns."""

    prepare: Callable[[Array, Workspace, Workspace | None], Prepared]
    working_shapes: Callable[[Shapes], Shapes] = _same_shapes
    to_working: Callable[[Tensors, bool, Workspace], Tensors] = _same_tensors
    from_working: Callable[[Tensors, Gradients, Workspace], None] = _copy
