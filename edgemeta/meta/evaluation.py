"""Adaptation, and scores before and after it.

Adaptation sees a participant's training data only; the test data is scored and nothing else.
"""

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import EvaluationConfig
from edgemeta.errors import DataError
from edgemeta.lengthy import lengthy
from edgemeta.meta.adaptations import FORWARD_BATCH, Labels, Steps, adapt_as, begun, descended
from edgemeta.meta.episodes import Classify, Learn, score_episodes
from edgemeta.meta.learner import Vectors
from edgemeta.meta.personal_heads import OWN_HEAD, with_own_head
from edgemeta.meta.samples import Samples
from edgemeta.nn import LOSSES, Model, Vector

LOSS_CEILING = 1e6  # the score of a loss that is larger or not finite, so that records stay numbers and means mean
SCORE_BATCH = FORWARD_BATCH
# Of a sample whose class a model does not have, and so gives no probability: as if it gave the smallest float32.
ABSENT_LOSS = -float(np.log(np.finfo(np.float32).tiny))


def adapt(
    model: Model,
    theta: Vector,
    support: Samples,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    rng: np.random.Generator,
) -> Vector:
    """Return new parameters, `steps` SGD steps from theta on the support set; see `edgemeta.meta.adaptations`."""
    return descended(model, theta, support, Steps(steps, lr, batch_size), rng)


def outputs_of(model: Model, theta: Vector, x: NDArray[Any]) -> NDArray[Any]:
    """Return the outputs (B, outputs) for samples x, in memory for some of them at a time."""
    starts = range(0, max(len(x), 1), SCORE_BATCH)
    return np.concatenate([model.forward(theta, x[start : start + SCORE_BATCH]) for start in starts])


@np.errstate(over="ignore", invalid="ignore")
def score(model: Model, theta: Vector, test: Samples, classes: Labels | None = None) -> dict[str, float]:
    """Return {"loss": mean loss} of the test samples and, for a classifier, {"accuracy": share classified right}.

    classes: the label of each output, where that is not its position; a sample of another class counts as wrong.
    Raises DataError when there are no samples, InputError for a label that the network does not know.
    """
    if not test.size:
        raise DataError("no test samples: expected one or more to score the model on")
    loss, right, count = 0.0, 0, test.size
    if classes is not None:
        places = np.full(max(int(test.y.max()), int(classes.max())) + 1, -1, np.int64)
        places[classes] = np.arange(len(classes), dtype=np.int64)
        there = places[test.y] >= 0
        loss = ABSENT_LOSS * int(np.count_nonzero(~there))
        test = Samples(test.x[there], places[test.y[there]])
    for start in lengthy("scoring", range(0, test.size, SCORE_BATCH)):
        batch = test.take(slice(start, start + SCORE_BATCH))
        outputs = model.forward(theta, batch.x)
        loss += LOSSES[model.loss].function(outputs, batch.y)[0] * batch.size
        if model.classifies:
            right += int(np.count_nonzero(outputs.argmax(axis=1) == batch.y))
    mean = loss / count
    scores = {"loss": min(mean, LOSS_CEILING) if np.isfinite(mean) else LOSS_CEILING}
    return scores | {"accuracy": right / count} if model.classifies else scores


@np.errstate(over="ignore", invalid="ignore")
def evaluate(
    model: Model,
    theta: Vector,
    train: Samples,
    test: Samples,
    settings: EvaluationConfig,
    batch_size: int,
    rng: np.random.Generator,
    beside: Vectors = MappingProxyType({}),
) -> dict[str, Any]:
    """Return one participant's scores of theta as it is, adapted on its training data, and over the grid.

    {"samples": test samples, "before": scores, "after": scores, "grid": [{"steps", "support", **scores}]}; every
    adaptation draws its support set from the front of one shuffled order, so that larger ones contain smaller ones. Of
    an embedding, "before" is None, as it has no classes yet, and "classes" is how many the participant has. beside:
    vectors by name that were trained beside theta: a head, with which steps of SGD begin, or their rates. With the
    participant's own head, "before" is its personalised model. Where the settings ask for episodes, also "episodes":
    [{"ways", "shots", "accuracy"}], after the configured adaptation, without an own head, as these classes are numbered
    anew; an accuracy is None where there are too few classes.
    """
    classes = len(np.union1d(train.y, test.y)) if model.embeds else 0
    network, start, rates = begun(settings, model, theta, beside, classes)
    own = with_own_head(model, theta, beside[OWN_HEAD]) if OWN_HEAD in beside else (model, theta)
    order = rng.permutation(train.size)

    def adapted(steps: int | None, support: int) -> dict[str, float]:
        made = adapt_as(settings, network, start, train.take(order[:support]), batch_size, rng, steps, rates)
        return score(*made[:2], test, made.classes)

    scores: dict[str, Any] = {
        "samples": test.size,
        "before": None if own[0].embeds else score(*own, test),
        "after": adapted(None, settings.support),
        "grid": [{"steps": k, "support": n, **adapted(k, n)} for k, n in settings.grid],
    }
    if model.embeds:
        scores["classes"] = classes
    if settings.episodes:
        common = {name: vector for name, vector in beside.items() if name != OWN_HEAD}
        learn = _learns(*begun(settings, model, theta, common, classes), settings, batch_size)
        task = {"ways": settings.ways, "episodes": settings.episodes}
        few = [(k, score_episodes(learn, train, test, shots=k, rng=rng, **task)) for k in settings.shots]
        scores["episodes"] = [{"ways": settings.ways, "shots": k, "accuracy": mean} for k, mean in few]
    return scores


def _learns(model: Model, theta: Vector, rates: Vector | None, settings: EvaluationConfig, batch_size: int) -> Learn:
    """Return what adapts a model to an episode: its classes are the first outputs, and the others are no answer."""

    def learn(support: Samples, rng: np.random.Generator) -> Classify:
        own = adapt_as(settings, model, theta, support, batch_size, rng, rates=rates)
        return lambda x: outputs_of(own.model, own.theta, x)[:, : settings.ways]

    return learn
