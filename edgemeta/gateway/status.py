"""What a gateway says of itself and its run to whoever looks after it."""

import hashlib
import json
import math
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgemeta import __version__
from edgemeta.gateway.memory import resident_bytes
from edgemeta.gateway.standings import doing, waiting_for
from edgemeta.link.protocol import PROTOCOL
from edgemeta.link.trust import Offered

if TYPE_CHECKING:
    from edgemeta.gateway.gateway import Gateway

STARTED = time.monotonic()
MANY, FRESH_S = 50, 0.2  # devices for which a status is not made anew sooner: of 1,000 it takes 30 ms


class Told:
    """The status as it is answered, so that who asks a hundred times a second costs little."""

    def __init__(self) -> None:
        self._tag, self._body, self._good_until = "", b"", -math.inf

    def at(self, gateway: "Gateway", now: float) -> tuple[str, bytes]:
        """Return the ETag (see `tag_of`) and the status as JSON, of up to FRESH_S ago where there are many devices."""
        if now >= self._good_until:
            self._tag, self._body = tag_of(gateway), json.dumps(status_of(gateway, now)).encode() + b"\n"
            self._good_until = now + FRESH_S * (len(gateway.roster.names) >= MANY)
        return self._tag, self._body


def certificate_of(offered: Offered | None, now: float) -> dict[str, Any] | None:
    """Return what is said of a certificate, ready for JSON; now: seconds since 1970."""
    return offered and {"names": [*offered.names], "days_left": offered.days_left(now)}


def status_of(gateway: "Gateway", now: float) -> dict[str, Any]:
    """Return the status, ready for JSON (the protocol page names its fields); now: seconds, of the gateway's clock."""
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(gateway.coordinator.directory.path).free
    machine = {"uptime_s": round(now - STARTED), "memory_bytes": resident_bytes(), "disk_free_bytes": free}
    return _facts(gateway, now) | machine


def tag_of(gateway: "Gateway") -> str:
    """Return an ETag of the status: it is the same as long as nothing has changed but what passing time changes."""
    facts = json.dumps(_facts(gateway, 0.0)).encode()  # ages and times left are then when something was, or will be
    return f'W/"{hashlib.blake2b(facts, digest_size=12).hexdigest()}"'


def _facts(gateway: "Gateway", now: float) -> dict[str, Any]:
    coordinator, progress, roster = gateway.coordinator, gateway.coordinator.progress, gateway.roster
    heard, missing, plan = gateway.heard, coordinator.missing, coordinator.plan
    words, counted = doing(coordinator, roster.names), progress.counted
    return {
        "protocol": PROTOCOL,
        "version": __version__,
        "run": coordinator.directory.path.name,
        "site": str(coordinator.directory.path.absolute().parent.parent),
        "waiting_for": waiting_for(coordinator, roster.name, now),
        "round": progress.round,
        "last_round": plan.last_round,
        "stage": progress.stage,
        "seconds_left": round(coordinator.seconds_left(now), 1) if progress.cohort else None,
        "participants": plan.config.data.participants,
        "joined": len(roster.names),
        "cohort": [roster.name(k) for k in progress.cohort],
        "delivered": len(progress.cohort) - len(missing),
        "missing": [roster.name(k) for k in missing],
        "held": [roster.name(k) for k in sorted(coordinator.standing.held)],
        "copied": [roster.name(k) for k in sorted(gateway.twins.found)],
        "wakes": {roster.name(k): wake_s for k, wake_s in sorted(coordinator.members.wakes.items())},
        "devices": [
            {
                "name": name,
                "participant": k,
                "heard_s": round(now - heard[k], 1) if k in heard else None,
                "doing": words[k],
                "trains": plan.trains(k),
                "counted": counted.get(str(k), 0),
                "refusals": dict(gateway.refused_of.get(k, {})),
                "accuracy": coordinator.shares.get(k),
                **gateway.traffic.of[k],
            }
            | ({"classes": coordinator.classes.get(k)} if coordinator.model.embeds else {})
            for k, name in sorted(roster.names.items())
        ],
        "model": coordinator.model.name,
        "parameters": coordinator.model.layout.size,
        "classes": len(plan.config.model.names) or None,
        "phases": [
            {"name": phase.name, "algorithm": phase.algorithm, "rounds": phase.rounds} for phase in plan.config.phases
        ],
        "curves": gateway.curves.to_json(),
        "earlier": [*gateway.earlier],
        "connections": gateway.listener and gateway.listener.connections,
        "certificate": certificate_of(gateway.certificate, time.time()),
        "tokens": gateway.tokens.required,
        "refusals": dict(gateway.refusals + gateway.listener_refusals),
        "errors": dict(gateway.failures.counts),
        **gateway.traffic.total,
    }
