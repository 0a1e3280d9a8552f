"""What to do about a message that would be logged a thousand times, and about what nobody expected."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemeta.names import MOST_SAID, shown

log = logging.getLogger("edgemeta")

FIRST_S, LONGEST_S = 5.0, 300.0  # between two lines about the same thing; doubled each time
MOST_STEPS = 6  # of our own code, on the way to where an exception was raised
PACKAGE = str(Path(__file__).parent)


class Seldom:
    """Says when a message is due again: `after_s` after it first came up, then after 5 s, 10 s, 20 s, ... 300 s."""

    def __init__(self, after_s: float = 0.0) -> None:
        self._after_s = after_s
        self._next: dict[Hashable, tuple[float, float]] = {}

    def due(self, key: Hashable, now: float) -> bool:
        """Return whether the message `key` should be logged at this time (seconds)."""
        when, gap = self._next.setdefault(key, (now + self._after_s, FIRST_S))
        if now < when:
            return False
        self._next[key] = (now + gap, min(2 * gap, LONGEST_S))
        return True


class OneLine(logging.Formatter):
    """Shows a message on one line, whatever has come into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = shown(record.message)
        return super().formatMessage(record)


def log_to_stderr(form: str, *, force: bool = False) -> None:
    """Have this process log warnings to standard error. form: of a line; force: in the place of what was set before."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(form))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=force)


class Failures:
    """Exceptions that nobody expected: counted by what was being done, and logged with their place, now and then.

    clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        self._clock, self._logged = clock, Seldom()

    @contextmanager
    def survived(self, what: str) -> Iterator[None]:
        """Go on after any error of the block, once it is taken note of."""
        try:
            yield
        except Exception as error:
            self.note(what, error)

    def note(self, what: str, error: BaseException) -> None:
        """Take note of an error in `what`, as in "request" or "tick".

        One line, whatever the error says: a traceback would quote a peer's line ends, and is not read a thousand times.
        """
        self.counts[what] += 1
        steps = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        if self._logged.due((what, type(error), *steps[-1:]), self._clock()):
            ours = [step for step in steps[:-1] if step[0].co_filename.startswith(PACKAGE)][-MOST_STEPS:]
            way = [f"{Path(code.co_filename).name}:{line} {code.co_qualname}" for code, line in (*ours, *steps[-1:])]
            said = shown(f"{type(error).__name__}: {error}", MOST_SAID)
            where = ", from ".join(way[::-1]) or "no place"
            log.error("a %s failed, and the run goes on: %s; at %s", what, said, where)
