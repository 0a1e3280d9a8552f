"""What an operator has ordered of devices, done by the running gateway (`edgemeta.gateway.tokens` keeps the orders)."""

import logging

from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.refusal import Refused
from edgemeta.gateway.roster import Roster
from edgemeta.gateway.tokens import HOLD, RELEASE, REMOVE, REPLACE, Tokens

log = logging.getLogger("edgemeta")


def follow_orders(coordinator: Coordinator, roster: Roster, tokens: Tokens, now: float) -> set[int]:
    """Do what was ordered since the last time, and return whose place is another board's now, or nobody's.

    The coordinator first, then the roster, then the order: a kill in between has it done again. Raises StorageError.
    """
    numbers, changed = {name: k for k, name in roster.names.items()}, set[int]()
    for name, order in tokens.orders().items():
        if name in numbers:
            number, (what, _, other) = numbers[name], order.partition(" ")
            try:
                _follow(coordinator, roster, name, number, what, other, now)
                changed |= {number} if what in (REMOVE, REPLACE) else set()
            except Refused as error:
                log.error("%s", error)
        tokens.followed(name, order)
    return changed


def _follow(
    coordinator: Coordinator, roster: Roster, name: str, number: int, what: str, other: str, now: float
) -> None:
    match what:
        case _ if what == HOLD:
            coordinator.hold(number)
            log.info("%(device)s is held: it is asked no more", {"device": name})
        case _ if what == RELEASE:
            coordinator.release(number)
            log.info("%(device)s is released", {"device": name})
        case _ if what == REMOVE:
            coordinator.remove(number, now)
            roster.remove(name)
            log.info("%(device)s is removed: the run goes on without it", {"device": name})
        case _ if what == REPLACE:
            roster.check_name(name, other)
            coordinator.replace(number)
            roster.replace(name, other)
            log.info(
                "%(device)s has the place of %(before)s, participant %(participant)d: the run waits for it to join",
                {"device": other, "before": name, "participant": number},
            )
