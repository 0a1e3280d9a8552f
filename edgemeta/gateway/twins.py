"""Boards with one card: two of them that speak with one session, as somebody has copied a card.

A device draws a number when it starts and says it with each request. One that starts anew never says an earlier number
again; two that run side by side do so in turns.
"""

import logging

log = logging.getLogger("edgemeta")

KEPT = 8  # numbers remembered of a participant
LONGEST = 64  # characters of one


class Twins:
    """What the devices of a run have said. found: the participants for which two boards speak."""

    def __init__(self) -> None:
        self._said: dict[int, list[str]] = {}
        self.found: set[int] = set()

    def heard(self, participant: int, number: str) -> bool:
        """Take note of what came with a request, "" nothing; return whether two boards are found by it."""
        number, said = number[:LONGEST], self._said.setdefault(participant, [])
        again = number in said[:-1]
        if number and said[-1:] != [number]:
            self._said[participant] = [*(one for one in said if one != number), number][-KEPT:]
        new = again and participant not in self.found
        if again:
            self.found.add(participant)
        return new

    def forget(self, participant: int) -> None:
        """Know nothing of a participant any more: another board has its place, or its card was made anew."""
        self._said.pop(participant, None)
        self.found.discard(participant)


def say_copied(name: str) -> None:
    """Log that two boards speak under a name."""
    log.error(
        "%(device)s is two boards, as its card was copied: empty the state folder of one of them, and let it join "
        "under a name of its own ('edgemeta enroll NAME'); what both send counts as one device's until then",
        {"device": name},
    )
