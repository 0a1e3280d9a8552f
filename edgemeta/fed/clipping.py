"""How far one update may move the model: no further than a few times what updates usually do.

Norms are Euclidean, of each travelling vector for itself, as a control variate and parameters are of different sizes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import numpy as np

from edgemeta.fed.upload import Encoded
from edgemeta.nn import Vector

ROUNDS = 20  # whose norms are known at a time
BLOCK = 1 << 16  # numbers looked at once
FEWEST = 3  # known norms, below which nobody can say what is usual
Norms = Mapping[str, float]  # of one update, by vector
RoundNorms = Mapping[str, Sequence[float]]  # of all updates of one round


def norm(vector: Vector | Encoded) -> float:
    """Return a vector's length, summed in float64, a block at a time; not finite where one of its numbers is not."""
    squares = 0.0
    wide = np.empty(min(vector.size, BLOCK), np.float64)  # used again: new memory takes longer than the sum
    with np.errstate(invalid="ignore"):  # some kinds of NaN are warned of when they are converted
        for start in range(0, vector.size, BLOCK):
            part = vector[start : start + BLOCK]
            block = wide[: part.size]
            block[:] = part
            squares += float(block @ block)
    return math.sqrt(squares)


def together(updates: Iterable[Norms]) -> dict[str, list[float]]:
    """Return the norms of a round's updates by vector."""
    found: dict[str, list[float]] = {}
    for norms in updates:
        for name, norm in norms.items():
            found.setdefault(name, []).append(norm)
    return found


def limits(known: Sequence[RoundNorms], these: RoundNorms, times: float | str) -> dict[str, float]:
    """Return the largest norm that counts, by vector: `times` the median of the known rounds' norms and of this one's.

    Vectors of which too few norms are known have none; nor has any when times is "off".
    """
    if isinstance(times, str):
        return {}
    usual = {name: [norm for one in (*known, these) for norm in one.get(name, ())] for name in these}
    return {name: times * median(norms) for name, norms in usual.items() if len(norms) >= FEWEST}


def scales(norms: Norms, most: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each vector of an update is scaled down, where it is."""
    return {name: most[name] / norm for name, norm in norms.items() if name in most and norm > most[name]}
