"""How many bytes of tasks, updates and evaluations a gateway has sent and received since it began, and whose."""

from collections import Counter, defaultdict

DOWN, UP = "bytes_down", "bytes_up"


class Traffic:
    """total, and of each participant: DOWN and UP -> bytes."""

    def __init__(self) -> None:
        self.total = Counter({DOWN: 0, UP: 0})
        self.of: defaultdict[int, Counter[str]] = defaultdict(lambda: Counter({DOWN: 0, UP: 0}))

    def count(self, participant: int, way: str, size: int) -> None:
        """Take note of the body of a message."""
        self.total[way] += size
        self.of[participant][way] += size
