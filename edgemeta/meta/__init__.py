"""Meta-learning on one participant: learners, local steps, adaptation, evaluation."""

from edgemeta.meta.evaluation import LOSS_CEILING, adapt, evaluate, score
from edgemeta.meta.learners import LEARNERS, GradientAt, Learner
from edgemeta.meta.local import LocalState, begin, steps_in, take_step
from edgemeta.meta.samples import Samples
from edgemeta.meta.trained import TrainedModel, load_model

__all__ = [
    "LEARNERS",
    "LOSS_CEILING",
    "GradientAt",
    "Learner",
    "LocalState",
    "Samples",
    "TrainedModel",
    "adapt",
    "begin",
    "evaluate",
    "load_model",
    "score",
    "steps_in",
    "take_step",
]
