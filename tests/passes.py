"""One layer, or one convolution, run forward and backward on given arrays."""

from typing import Any

import numpy as np
from gradients import Array

from edgemeta.nn import Conv2d, Workspace
from edgemeta.nn.kernels.kernel import Kernel
from edgemeta.nn.plan import Chain, pool_first


def convolved(way: Any, arrays: list[Array], space: Workspace | None = None, need_dx: bool = True) -> list[Array]:
    """Return copies of y, dweight and dx (if it is needed) of a kernel, or a module's, for x, weight and dy."""
    x, weight, dy = arrays
    kernel: Kernel = way if isinstance(way, Kernel) else way.kernel(weight.shape)
    space, tensors = space or Workspace(), {"weight": weight}
    params = kernel.to_working(tensors, need_dx, space.part("working"))
    prepared = kernel.prepare(x, space.part("scratch"), space.part("kept"))
    dx, backward = prepared.prepare_backward(dy, need_dx)
    prepared.forward(params)
    y = prepared.y.copy()
    shapes = kernel.working_shapes({"weight": weight.shape})
    sums, grads = ({"weight": np.full(shape, np.nan, x.dtype)} for shape in (shapes["weight"], weight.shape))
    backward(params, sums)
    kernel.from_working(sums, grads, space.part("working"))
    return [y, grads["weight"]] if dx is None else [y, grads["weight"], dx.copy()]


def run(
    layer: Any, params: dict[str, Array], x: Array, dy: Array, space: Workspace | None = None, need_dx: bool = True
) -> tuple[Array, Array | None, dict[str, Array]]:
    """Return copies of y, dx (if it is needed) and the gradients of a layer."""
    space = space or Workspace()
    if isinstance(layer, Conv2d):
        kernel = layer.computed_by(x.shape[1:], x.dtype)
        y, dweight, *dx = convolved(kernel, [x, params["weight"], dy], space, need_dx)
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
