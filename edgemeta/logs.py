"""How a log's lines look, what to do about one that would come a thousand times, and about what nobody expected."""

import json
import logging
import math
import re
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgemeta.names import MOST_SAID, shown

log = logging.getLogger("edgemeta")

FIRST_S, LONGEST_S = 5.0, 300.0  # between two lines about the same thing; doubled each time
MOST_STEPS = 6  # of our own code, on the way to where an exception was raised
PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # what needs no quotation marks: visible ASCII but for " = and the backslash
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


class ForPeople(logging.Formatter):
    """A line that is read: the message, on one line whatever has come into it, after its level if that is a warning."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        return level + shown(record.message)


class ForPrograms(logging.Formatter):
    """A line that is searched: time, level, event (the message), and the values in the message by their names.

    write: makes the line of them, `logfmt` or `json_line`. A message has names where its values are given as a mapping:
    log.info("%(device)s joined", {"device": "cam", "participant": 3}).
    """

    def __init__(self, write: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        if record.exc_info:
            facts["exception"] = repr(record.exc_info[1])
        return self._write(facts | dict(record.args) if isinstance(record.args, Mapping) else facts)


def logfmt(facts: Mapping[str, Any]) -> str:
    """Return facts as `key=value`; a value is in quotation marks, and escaped as in JSON, where it needs them."""
    texts = {key: str(value) for key, value in facts.items()}
    return " ".join(f"{key}={text if PLAIN.fullmatch(text) else _quoted(text)}" for key, text in texts.items())


def _quoted(text: str) -> str:
    return shown(json.dumps(text, ensure_ascii=False))


def json_line(facts: Mapping[str, Any]) -> str:
    """Return facts as a JSON object in ASCII; a number that JSON does not have is text."""
    odd = {key: str(value) for key, value in facts.items() if isinstance(value, float) and not math.isfinite(value)}
    return json.dumps({**facts, **odd}, default=str)


def log_to_stderr(form: logging.Formatter, level: str = "WARNING") -> None:
    """Have this process log to standard error, and nowhere else; level: from which on, by its name in any case."""
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(level.upper())


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
            log.error(
                "a %(what)s failed, and the run goes on: %(error)s; at %(at)s",
                {"what": what, "error": said, "at": where},
            )
