"""What a computation borrows: scratch memory that outlives a step, plans of views into it, and threads.

Memory is kept so that no step allocates what the one before could have left it. Work for threads comes in pieces that
do not depend on how many threads there are, so that the bits of a result do not either.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgemeta.nn.layout import Shape

Array = NDArray[Any]
T = TypeVar("T")
MAX_THREADS = 64  # of one model: more than any board has, and few enough not to be a mistake
PLANS = 8  # kept at once: training, adapting, scoring and predicting, each with whole and with short batches


class Workspace:
    """Buffers by key, made once and reused.

    One workspace serves one computation at a time: what a step left in it is overwritten by the next. A caller
    that trains and predicts at once uses two. Dropping it frees the memory.
    """

    def __init__(self, whole: "Workspace | None" = None) -> None:
        self._buffers: dict[Any, Array] = {}
        self._parts: dict[Any, Workspace] = {}
        self._plans: dict[Any, Any] = {}
        self._of = whole and weakref.ref(whole)  # weak: in a circle, dropping the workspace would not free its memory
        self.results = 0  # taken so far
        self._moves = 0
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

    def lane(self, piece: int) -> "Workspace":
        """Return the workspace of the thread that takes this piece of `each`, for what nobody reads after the piece."""
        whole = self._whole
        return whole.part(("lane", piece % whole.threads))

    def plan(self, key: Any, make: Callable[[], T]) -> T:
        """Return make(), kept from an earlier call with this key if there was one.

        What is made may hold views of this memory: all is made anew when a buffer has had to grow, and so to move.
        """
        made: T | None = self._plans.pop(key, None)
        while made is None:
            moves, made = self._whole._moves, make()
            if self._whole._moves != moves:
                self._plans.clear()
                made = None
        self._plans[key] = made
        if len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]  # the one that was not used for longest
        return made

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Call work(0) to work(count - 1), in any order, on the threads that the whole workspace was given."""
        threads = min(self._whole.threads, count)

        def share(first: int) -> None:
            for piece in range(first, count, threads):
                work(piece)

        if threads > 1:
            settings, call = np.geterr(), np.geterrcall()

            def share_elsewhere(first: int) -> None:
                np.seterr(**settings)  # each thread has its own, and shall keep to the caller's np.errstate
                np.seterrcall(call)
                share(first)

            pool = _pool(os.getpid())
            others = [pool.submit(share_elsewhere, first) for first in range(1, threads)]
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
        size, key = math.prod(shape), (key, np.dtype(dtype))
        buffer = self._buffers.get(key)
        if buffer is None or buffer.size < size:
            self._whole._moves += buffer is not None
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

    def result(self, shape: Shape, dtype: Any) -> Array:
        """Return an array for what a layer hands to the next one, as `samples` does.

        There are two such buffers, and they take turns: a layer writes one while it reads the other, and all layers
        write where the cache is warm. So a layer takes one a pass: a second one would be the buffer that it reads.
        """
        self.results += 1
        return self.samples(("result", self.results % 2), shape, dtype)


class Own:
    """A workspace for each thread, lent to one computation at a time.

    A computation that comes in the middle of another one of its thread, in a signal handler say, is lent a new one. One
    that ends with an error gives nothing back, so that what it left half done is gone. A thread's end frees its
    workspace, `release` that of every thread: what is lent at the moment, when it is given back.
    """

    def __init__(self) -> None:
        self._threads = threading.local()

    @contextmanager
    def lend(self) -> Iterator[Workspace]:
        """Give the workspace that the thread's last computation left, or a new one."""
        mine = self._threads.__dict__  # this thread's, and after `release` nobody's
        workspace = mine.pop("workspace", None) or Workspace()
        yield workspace
        mine["workspace"] = workspace

    def release(self) -> None:
        """Free the memory."""
        self._threads = threading.local()


def in_one_piece(x: Array, size: tuple[int, int], scratch: Workspace) -> tuple[Array, Callable[[], None]]:
    """Return x (B, H, W, C) as (*size, B, C), contiguous, with zeros beyond the picture; and what is to fill it."""
    beside = x.transpose(1, 2, 0, 3)
    if beside.shape[:2] == size and beside.flags.c_contiguous:
        return beside, lambda: None
    whole = scratch.array("whole", (*size, *beside.shape[2:]), x.dtype)
    return whole, lambda: fill_inside(whole, beside, 0, 0)


def fill_inside(whole: Array, x: Array, top: int, left: int) -> None:
    """Write x (H, W, ...) into `whole`, behind so many rows and columns, and zeros around it."""
    bottom, right = top + x.shape[0], left + x.shape[1]
    whole[:top] = 0
    whole[bottom:] = 0
    whole[top:bottom, :left] = 0
    whole[top:bottom, right:] = 0
    whole[top:bottom, left:right] = x


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """Return the process's pool, which starts threads as needed; a forked process has to make its own."""
    return ThreadPoolExecutor(MAX_THREADS - 1, "edgemeta")
