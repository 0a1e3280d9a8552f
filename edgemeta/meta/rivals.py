"""Learners of common class names where every participant has its own: each numbers its classes, and a head travels too.

They run as rivals of learners that need no names. What travels is the embedding as theta, and beside it the head of as
many classes as a participant has at most; local steps train both as one network (`Model.headed`).
"""

from collections.abc import Mapping

import numpy as np

from edgemeta.nn import Model, Vector

HEAD = "head"  # the vector that travels beside theta


def begin_head(model: Model) -> Vector:
    """Return the head's first value: it is initialised as in a whole network, the same in every run."""
    assert model.headed is not None  # who has learners that need one gives it
    return model.headed.init(0)[model.layout.size :]


def joined(vectors: Mapping[str, Vector], head: str = HEAD) -> dict[str, Vector]:
    """Return the vectors with theta and the head of that name as one, where there is one."""
    if head not in vectors:
        return dict(vectors)
    rest = {name: vector for name, vector in vectors.items() if name != head}
    return rest | {"theta": np.concatenate([vectors["theta"], vectors[head]])}


def parted(vectors: Mapping[str, Vector], size: int, head: str = HEAD) -> dict[str, Vector]:
    """Return the vectors as they were before `joined`, where it has made theta longer than `size`."""
    theta = vectors["theta"]
    return dict(vectors) if theta.size == size else {**vectors, "theta": theta[:size], head: theta[size:]}
