"""Who takes part in a stage of a round. away: who was missing when last asked and has not been heard of since."""

from collections.abc import Collection

from edgemeta.fed.plan import Plan
from edgemeta.fed.selection import SELECTIONS
from edgemeta.fed.similar import Sketches
from edgemeta.fed.streams import Stream, generator


def trainers(
    plan: Plan,
    round_number: int,
    attempt: int,
    joined: Collection[int],
    away: Collection[int],
    sketches: Sketches,
) -> list[int]:
    """Return the cohort of a round: the configured fraction of the training participants that are there, drawn.

    attempt: how often the round was opened before; each draws anew. When too few are there, those that are away are
    asked as well. sketches: of those that have trained, where the
    selection needs them.
    """
    server = plan.server
    least = server.min_fit_clients or 1
    here = sorted(set(joined) - set(away))
    candidates = here if len(here) >= least else sorted(joined)
    size = max(least, round(server.fraction_fit * len(candidates)))
    where = (plan.phase_of(round_number), round_number, attempt)
    rng = generator(plan.config.seed, Stream.SELECTION, *where)
    drawn: list[int] = rng.permutation(candidates).tolist()
    chosen = SELECTIONS[server.selection].choose(drawn, least, sketches, server.groups or 1, rng)
    return sorted(chosen[:size])


def evaluators(plan: Plan, round_number: int, roster: Collection[int], away: Collection[int]) -> list[int]:
    """Return who scores a round's model: everyone that is there, held-out participants too.

    Held-out participants are no part of the quorum, so the evaluation of the start gives them time to come.
    """
    expected = {*roster, *(plan.held_out if round_number == 0 else ())}
    return sorted(expected - set(away)) or sorted(roster)
