"""(B, ...) to (B, D), in the order (H, W, C)."""

import math

from edgemeta.nn.kernels.kernel import Array, Backward, Kernel, Prepared
from edgemeta.nn.kernels.workspace import Workspace


def kernel() -> Kernel:
    """Return the view that flattens all but the batch's axis: of what lies in this order already, nothing is copied."""
    return Kernel(_prepare)


def _prepare(x: Array, _scratch: Workspace, _kept: Workspace | None) -> Prepared:
    assert x.flags.c_contiguous, "a copy would be made once, and not again when x is filled anew"

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        return dy.reshape(x.shape), lambda _params, _grads: None  # splitting an axis gives a view of any array

    return Prepared(x.reshape(len(x), math.prod(x.shape[1:])), lambda _: None, prepare_backward)
