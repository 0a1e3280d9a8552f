"""The command line with learners that only tests know: run it as a script, with the arguments of `edgemeta`."""

from typing import Any

import numpy as np

from edgemeta.meta.learner import GradientAt, Learner
from edgemeta.meta.learners import LEARNERS


def _counting(model: Any, vectors: Any, batches: Any, recipe: Any, workspace: Any) -> Any:
    """Descend as FedAvg does, and add one to `count` in each step: - lr * (-1 / lr)."""
    one = np.full_like(vectors["count"], -1 / recipe.lr)
    return [], {"theta": GradientAt(vectors["theta"], batches[0]), "count": one}


def _sharing(model: Any, vectors: Any, batches: Any, recipe: Any, workspace: Any) -> Any:
    """The same, from where half of the second vector stands: what travels beside theta changes what is learned."""
    losses, directions = _counting(model, vectors, batches, recipe, workspace)
    moved = vectors["theta"] + vectors["count"][0] * np.float32(0.001)
    return losses, directions | {"theta": GradientAt(moved, batches[0])}


COUNTING = Learner(_counting, lambda _: 1, lambda _: 1, "none", private={"count": lambda _: np.zeros(1, np.float32)})
SHARING = Learner(_sharing, lambda _: 1, lambda _: 1, "none", shared={"count": lambda _: np.zeros(3, np.float32)})

if __name__ == "__main__":
    from edgemeta.cli import main

    LEARNERS.update(counting=COUNTING, sharing=SHARING)
    main()
