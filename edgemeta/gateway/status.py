"""What a gateway says of itself and its run to whoever looks after it."""

import time
from typing import Any

from edgemeta import __version__
from edgemeta.gateway.gateway import Gateway
from edgemeta.link.protocol import PROTOCOL
from edgemeta.link.trust import Offered


def certificate_of(offered: Offered | None, now: float) -> dict[str, Any] | None:
    """Return what is said of a certificate, ready for JSON; now: seconds since 1970."""
    return offered and {"names": [*offered.names], "days_left": offered.days_left(now)}


def status_of(gateway: Gateway, now: float) -> dict[str, Any]:
    """Return the status, ready for JSON (the protocol page names its fields); now: seconds, of the gateway's clock."""
    coordinator, progress, roster = gateway.coordinator, gateway.coordinator.progress, gateway.roster
    heard, missing = gateway.heard, gateway.coordinator.missing
    return {
        "protocol": PROTOCOL,
        "version": __version__,
        "run": coordinator.directory.path.name,
        "waiting_for": gateway.waiting_for(),
        "round": progress.round,
        "last_round": coordinator.plan.last_round,
        "stage": progress.stage,
        "seconds_left": round(coordinator.seconds_left(now), 1) if progress.cohort else None,
        "participants": coordinator.plan.config.data.participants,
        "joined": len(roster.names),
        "cohort": [roster.name(k) for k in progress.cohort],
        "delivered": len(progress.cohort) - len(missing),
        "missing": [roster.name(k) for k in missing],
        "held": [roster.name(k) for k in sorted(coordinator.standing.held)],
        "copied": [roster.name(k) for k in sorted(gateway.twins.found)],
        "wakes": {roster.name(k): wake_s for k, wake_s in sorted(coordinator.members.wakes.items())},
        "devices": [
            {"name": name, "participant": k, "heard_s": round(now - heard[k], 1) if k in heard else None}
            | ({"classes": coordinator.classes.get(k)} if coordinator.model.embeds else {})
            for k, name in sorted(roster.names.items())
        ],
        "connections": gateway.listener and gateway.listener.connections,
        "certificate": certificate_of(gateway.certificate, time.time()),
        "refusals": dict(gateway.refusals + gateway.listener_refusals),
        "errors": dict(gateway.failures.counts),
        **gateway.traffic,
    }
