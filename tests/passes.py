"""One layer, or one way to convolve, run forward and backward on given arrays."""

from typing import Any

import numpy as np
from gradients import Array

from edgemeta.nn import Conv2d, Workspace
from edgemeta.nn.plan import Chain, pool_first


def convolved(method: Any, arrays: list[Array], space: Workspace | None = None, need_dx: bool = True) -> list[Array]:
    """Return copies of y, dweight and dx (if it is needed) of a module for x, weight and dy."""
    x, weight, dy = arrays
    space = space or Workspace()
    working = method.to_working(weight, need_dx, space.part("working"))
    prepared = method.prepare(x, weight.shape, space.part("scratch"), space.part("kept"))
    dx, backward = prepared.prepare_backward(dy, need_dx)
    prepared.forward(working)
    y = prepared.y.copy()
    total, dweight = np.full(method.working_shape(weight.shape), np.nan, x.dtype), np.full_like(weight, np.nan)
    backward(working, {"weight": total})
    method.from_working(total, dweight, space.part("working"))
    return [y, dweight] if dx is None else [y, dweight, dx.copy()]


def run(
    layer: Any, params: dict[str, Array], x: Array, dy: Array, space: Workspace | None = None, need_dx: bool = True
) -> tuple[Array, Array | None, dict[str, Array]]:
    """Return copies of y, dx (if it is needed) and the gradients of a layer."""
    space = space or Workspace()
    if isinstance(layer, Conv2d):
        method = layer.method(x.shape[1:], x.dtype)
        y, dweight, *dx = convolved(method, [x, params["weight"], dy], space, need_dx)
        (_, _), (bias, _) = pool_first([(layer, {name: name for name in params})])
        y, _, grads = run(bias, {"bias": params["bias"]}, y, dy, space.part("bias"))
        return y, dx[0] if dx else None, {"weight": dweight, **grads}
    chain = Chain([(layer, {name: name for name in params})], x, space.part("scratch"), space.part("kept"))
    grads = {name: np.full_like(tensor, np.nan) for name, tensor in params.items()}
    place = chain.prepare_backward(dy, need_dx)
    chain.forward([params])
    y = chain.y.copy()
    chain.backward([params], [grads])
    return y, None if place is None else place.copy(), grads
