"""Adaptation, and scores before and after it.

Adaptation sees a participant's training data only; the test data is scored and nothing else.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import EvaluationConfig
from edgemeta.errors import DataError
from edgemeta.meta.episodes import Classify, Learn, score_episodes
from edgemeta.meta.samples import Samples
from edgemeta.nn import LOSSES, Model, Vector

LOSS_CEILING = 1e6  # the score of a loss that is larger or not finite, so that records stay numbers and means mean
SCORE_BATCH = 32  # samples scored at once: no more memory than training; fixed, as the last bits depend on it


@np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the scores
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
    """Return new parameters, `steps` SGD steps from theta on the support set.

    A step uses the whole support set when it fits `batch_size`, else a batch drawn from it.
    """
    theta = theta.copy()
    for _ in range(steps):
        batch = support
        if support.size > batch_size:
            batch = support.take(rng.choice(support.size, batch_size, replace=False))
        model.descend(theta, batch.x, batch.y, lr, out=theta)
    return theta


def outputs_of(model: Model, theta: Vector, x: NDArray[Any]) -> NDArray[Any]:
    """Return the outputs (B, outputs) for samples x, in memory for some of them at a time."""
    starts = range(0, max(len(x), 1), SCORE_BATCH)
    return np.concatenate([model.forward(theta, x[start : start + SCORE_BATCH]) for start in starts])


@np.errstate(over="ignore", invalid="ignore")
def score(model: Model, theta: Vector, test: Samples) -> dict[str, float]:
    """Return {"loss": mean loss} of the test samples and, for a classifier, {"accuracy": share classified right}.

    Raises DataError when there are none, InputError for a label that the network does not know.
    """
    if not test.size:
        raise DataError("no test samples: expected one or more to score the model on")
    loss, right = 0.0, 0
    for start in range(0, test.size, SCORE_BATCH):
        batch = test.take(slice(start, start + SCORE_BATCH))
        outputs = model.forward(theta, batch.x)
        loss += LOSSES[model.loss].function(outputs, batch.y)[0] * batch.size
        if model.classifies:
            right += int(np.count_nonzero(outputs.argmax(axis=1) == batch.y))
    mean = loss / test.size
    scores = {"loss": min(mean, LOSS_CEILING) if np.isfinite(mean) else LOSS_CEILING}
    return scores | {"accuracy": right / test.size} if model.classifies else scores


@np.errstate(over="ignore", invalid="ignore")
def evaluate(
    model: Model,
    theta: Vector,
    train: Samples,
    test: Samples,
    settings: EvaluationConfig,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return one participant's scores of theta as it is, adapted on its training data, and over the grid.

    {"samples": test samples, "before": scores, "after": scores, "grid": [{"steps", "support", **scores}]}; every
    adaptation draws its support set from the front of one shuffled order, so that larger ones contain smaller ones.
    Where the settings ask for episodes, also "episodes": [{"ways", "shots", "accuracy"}], after the configured
    adaptation; an accuracy is None where there are too few classes.
    """
    order = rng.permutation(train.size)

    def adapted(steps: int, support: int) -> dict[str, float]:
        personal = adapt(
            model,
            theta,
            train.take(order[:support]),
            steps=steps,
            lr=settings.adapt_lr,
            batch_size=batch_size,
            rng=rng,
        )
        return score(model, personal, test)

    scores = {
        "samples": test.size,
        "before": score(model, theta, test),
        "after": adapted(settings.adapt_steps, settings.support),
        "grid": [{"steps": k, "support": n, **adapted(k, n)} for k, n in settings.grid],
    }
    if not settings.episodes:
        return scores
    task, learn = {"ways": settings.ways, "episodes": settings.episodes}, _learns(model, theta, settings, batch_size)
    few = [(k, score_episodes(learn, train, test, shots=k, rng=rng, **task)) for k in settings.shots]
    return scores | {"episodes": [{"ways": settings.ways, "shots": k, "accuracy": mean} for k, mean in few]}


def _learns(model: Model, theta: Vector, settings: EvaluationConfig, batch_size: int) -> Learn:
    """Return what adapts a model to an episode: its classes are the first outputs, and the others are no answer."""

    def learn(support: Samples, rng: np.random.Generator) -> Classify:
        steps, lr = settings.adapt_steps, settings.adapt_lr
        personal = adapt(model, theta, support, steps=steps, lr=lr, batch_size=batch_size, rng=rng)
        return lambda x: outputs_of(model, personal, x)[:, : settings.ways]

    return learn
