"""Meta-learning on one participant: learners, local steps, adaptation, evaluation."""

from edgemeta.meta.adaptations import ADAPTATIONS, Adaptation, Own, adapt_as, adaptation_of, checked
from edgemeta.meta.evaluation import LOSS_CEILING, adapt, evaluate, score
from edgemeta.meta.learner import GradientAt, Learner
from edgemeta.meta.learners import LEARNERS
from edgemeta.meta.local import LocalState, begin, steps_in, take_step
from edgemeta.meta.samples import Samples
from edgemeta.meta.trained import TrainedModel, load_model, owned, scores_of

__all__ = [
    "ADAPTATIONS",
    "LEARNERS",
    "LOSS_CEILING",
    "Adaptation",
    "GradientAt",
    "Learner",
    "LocalState",
    "Own",
    "Samples",
    "TrainedModel",
    "adapt",
    "adapt_as",
    "adaptation_of",
    "begin",
    "checked",
    "evaluate",
    "load_model",
    "owned",
    "score",
    "scores_of",
    "steps_in",
    "take_step",
]
