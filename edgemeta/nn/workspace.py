"""What a computation borrows: scratch memory that outlives a step, and threads.

Memory is kept so that no step allocates what the one before could have left it. Work for threads comes in pieces that
do not depend on how many threads there are, so that the bits of a result do not either.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.nn.layout import Shape

Array = NDArray[Any]
MAX_THREADS = 64  # of one model: more than any board has, and few enough not to be a mistake


class Workspace:
    """Buffers by key, made once and reused.

    One workspace serves one computation at a time: what a step left in it is overwritten by the next. A caller
    that trains and predicts at once uses two. Dropping it frees the memory.
    """

    def __init__(self, whole: "Workspace | None" = None) -> None:
        self._buffers: dict[Any, Array] = {}
        self._parts: dict[Any, Workspace] = {}
        self._of = whole and weakref.ref(whole)  # weak: in a circle, dropping the workspace would not free its memory
        self._local = threading.local()
        self._turn = 0
        self.threads = 1

    @property
    def _whole(self) -> "Workspace":
        """The workspace that this one is a part of."""
        return (self._of and self._of()) or self

    def part(self, key: Any) -> "Workspace":
        """Return the workspace inside this one that belongs to `key`, say to one layer."""
        if key not in self._parts:
            self._parts[key] = Workspace(self._whole)
        return self._parts[key]

    @property
    def passing(self) -> "Workspace":
        """The running thread's own workspace, for what nobody reads after the present call.

        All parts share it, so what a layer leaves there is gone when the next one starts; being reused at once, it
        stays in the processor's cache. To be asked for in each call: a backward pass may run on another thread.
        """
        local = self._whole._local
        if not hasattr(local, "workspace"):
            local.workspace = Workspace(self._whole)
        workspace: Workspace = local.workspace
        return workspace

    def result(self, shape: Shape, dtype: Any) -> Array:
        """Return an array for what a layer hands to the next one, as `samples` does.

        Each thread has two such buffers, and they take turns: a layer writes one while it reads the other, and all
        layers write where the cache is warm.
        """
        passing = self.passing
        passing._turn = 1 - passing._turn
        return passing.samples(("result", passing._turn), shape, dtype)

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Call work(0) to work(count - 1), in any order, on the threads that the whole workspace was given."""
        threads = min(self._whole.threads, count)

        def share(first: int) -> None:
            for piece in range(first, count, threads):
                work(piece)

        if threads > 1:
            others = [_pool(os.getpid()).submit(share, first) for first in range(1, threads)]
            try:
                share(0)
            finally:  # nobody may write into this memory any more when the caller hears of an error
                wait(others)
            for other in others:
                other.result()
        elif count:
            share(0)

    def array(self, key: Any, shape: Shape, dtype: Any) -> Array:
        """Return an array of `shape` with unspecified content, in the memory that `key` had before if it fits."""
        size = math.prod(shape)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = self._buffers[key] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)

    def samples(self, key: Any, shape: Shape, dtype: Any) -> Array:
        """Return an array of `shape` (B, ...); pictures (B, H, W, C) get the order (H, W, B, C) in memory.

        With the samples next to the channels, whatever is done at one place of the picture is done to B*C numbers in
        a row, where C alone would be too few for long copies and sums.
        """
        if len(shape) != 4:
            return self.array(key, shape, dtype)
        batch, height, width, channels = shape
        return self.array(key, (height, width, batch, channels), dtype).transpose(2, 0, 1, 3)


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """Return the process's pool, which starts threads as needed; a forked process has to make its own."""
    return ThreadPoolExecutor(MAX_THREADS - 1, "edgemeta")
