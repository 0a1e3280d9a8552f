"""A function applied in several processes at once; what it needs besides its argument is inherited by forking."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
_function: Callable[[Any], Any] | None = None


@contextmanager
def processes(jobs: int) -> Iterator[Each]:
    """Give a `map` that uses so many processes; it must be called with the same function every time.

    The processes start at the first call, so that they share what the caller's memory holds by then.
    """
    pools: list[ProcessPoolExecutor] = []

    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        if not pools:
            pools.append(ProcessPoolExecutor(jobs, get_context("fork"), _begin, (function, os.getpid())))
        return pools[0].map(_call, items)

    try:
        yield map if jobs == 1 else each
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[Any], Any], parent: int) -> None:
    """Make a new process ready: its parent handles signals, and its death is this process's too."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(item: Any) -> Any:
    assert _function is not None  # set by _begin
    return _function(item)
