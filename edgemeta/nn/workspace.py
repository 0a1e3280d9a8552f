"""Scratch memory that outlives a step, so that no step allocates what the one before could have left it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.nn.layout import Shape


class Workspace:
    """Buffers by key, made once and reused.

    One workspace serves one computation at a time: what a step left in it is overwritten by the next. A caller
    that trains and predicts at once uses two. Dropping it frees the memory.
    """

    def __init__(self) -> None:
        self._buffers: dict[Any, NDArray[Any]] = {}
        self._parts: dict[Any, Workspace] = {}

    def part(self, key: Any) -> "Workspace":
        """Return the workspace inside this one that belongs to `key`, say to one layer."""
        return self._parts.setdefault(key, Workspace())

    def array(self, key: Any, shape: Shape, dtype: Any) -> NDArray[Any]:
        """Return an array of `shape` with unspecified content, in the memory that `key` had before if it fits."""
        size = math.prod(shape)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = self._buffers[key] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)
