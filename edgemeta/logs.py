"""What to do about a message that would be logged a thousand times: log it less and less often."""

from collections.abc import Hashable

LONGEST_S = 300.0


class Seldom:
    """Says when a message is due again: `after_s` after it first came up, then after 5 s, 10 s, 20 s, ... 300 s."""

    def __init__(self, after_s: float = 0.0) -> None:
        self._after_s = after_s
        self._next: dict[Hashable, tuple[float, float]] = {}

    def due(self, key: Hashable, now: float) -> bool:
        """Return whether the message `key` should be logged at this time (seconds)."""
        when, gap = self._next.setdefault(key, (now + self._after_s, 5.0))
        if now < when:
            return False
        self._next[key] = (now + gap, min(2 * gap, LONGEST_S))
        return True
