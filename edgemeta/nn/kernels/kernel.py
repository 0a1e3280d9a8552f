"""A layer's work: prepared once for where its input lies in memory, and then run many times.

    y, forward, prepare_backward = prepare(x, ..., scratch, kept)
    dx, backward = prepare_backward(dy, need_dx)
    forward(params)             reads x and writes y
    backward(params, grads)     reads dy, writes dx (which may be None if it is not needed) and each gradient once

Where dy will be is known when the later layers are prepared, so the backward pass is prepared after them.

x, y, dy and dx are places in memory, which stay where they are, so that views of them are made only once: to make them
in each step took a tenth of a step of cnn, and a quarter of one of cnn-small. `params` and `grads` map the layer's own
tensor names ("weight", "bias") to arrays; in grads, a `Descent` may stand for the gradient of a dense layer's weights.
What the backward pass needs is in the closures; a layer has no state. `scratch` is written over by the next layer: it
alone reads y or dx. What the backward pass needs of the forward one lies in `kept`, which is this layer's own, or None
when no backward pass will come.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Gradients = Mapping[str, Any]  # where the gradients are to go: arrays, or a `Descent`
Backward = Callable[[Tensors, Gradients], None]


class Prepared(NamedTuple):
    """What `prepare` returns."""

    y: Array
    forward: Callable[[Tensors], None]
    prepare_backward: Callable[[Array, bool], tuple[Array | None, Backward]]
