"""What a round of any learner begins with."""

from edgemeta.config import PhaseConfig
from edgemeta.meta.learners import shared_of, sizes
from edgemeta.nn import Model, Vector


def shared(model: Model, recipe: PhaseConfig, theta: Vector) -> dict[str, Vector]:
    """Return what travels of theta, and what travels beside it in a first round."""
    beside = {name: start(model) for name, start in shared_of(model, recipe.algorithm).items()}
    return {"theta": theta[: sizes(model, recipe.algorithm)["theta"]]} | beside
