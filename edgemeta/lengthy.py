"""Work that may take long, and who is told how far it is: nobody, unless a command wants to show it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Tell = Callable[[str, int, int], None]
_tell: ContextVar[Tell | None] = ContextVar("_tell", default=None)  # one's own in each thread


@contextmanager
def told(tell: Tell) -> Iterator[None]:
    """Have `tell` hear, while the context lasts, what is done in this thread, how much of it, and of how much."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def lengthy(what: str, items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items of a work, as in "reading pictures", telling after each."""
    tell = _tell.get()
    for done, item in enumerate(items, 1):
        yield item
        if tell is not None:
            tell(what, done, len(items))
