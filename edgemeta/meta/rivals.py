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


def joined(vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return the vectors with theta and head as one, where there is a head."""
    if HEAD not in vectors:
        return dict(vectors)
    rest = {name: vector for name, vector in vectors.items() if name != HEAD}
    return rest | {"theta": np.concatenate([vectors["theta"], vectors[HEAD]])}


def parted(vectors: Mapping[str, Vector], shared: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return the vectors as they travel, those that `joined` made of `shared` apart again."""
    if HEAD not in shared:
        return dict(vectors)
    size = shared["theta"].size
    return {**vectors, "theta": vectors["theta"][:size], HEAD: vectors["theta"][size:]}
