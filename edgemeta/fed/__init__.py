"""Federation: plan, participants' work, the round's state machine, and a whole run in one process."""

from edgemeta.fed.aggregate import AGGREGATORS, OPTIMIZERS, weighted_mean
from edgemeta.fed.client import Update, client_update
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.participants import Participant, divide
from edgemeta.fed.plan import Plan, network_of, resolve
from edgemeta.fed.simulation import RunResult, run

__all__ = [
    "AGGREGATORS",
    "OPTIMIZERS",
    "Coordinator",
    "Participant",
    "Plan",
    "RunDirectory",
    "RunResult",
    "Update",
    "client_update",
    "divide",
    "network_of",
    "resolve",
    "run",
    "weighted_mean",
]
