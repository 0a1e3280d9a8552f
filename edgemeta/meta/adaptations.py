"""The adaptations: how a model becomes a participant's own, from samples of its own.

An adaptation is a function

    adapt(model, theta, support, settings, rng) -> Own

`support` are training samples, and nothing that is scored later. An embedding has no classes: each adaptation gives it
a head for those of the support set. What an adaptation computes and keeps is said beside it, in `cost`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import EvaluationConfig
from edgemeta.errors import ConfigError, DataError
from edgemeta.lengthy import lengthy
from edgemeta.meta.learner import Vectors
from edgemeta.meta.maml import RATES
from edgemeta.meta.personal_heads import OWN_HEAD, with_own_head
from edgemeta.meta.rivals import HEAD
from edgemeta.meta.samples import Samples
from edgemeta.nn import Model, Vector, subtract_scaled
from edgemeta.nn.heads import body_of, first_outputs, with_head
from edgemeta.nn.layers import Dense
from edgemeta.nn.prototypes import beyond, fitted_scale, head_of, means
from edgemeta.nn.ridge import ridge_head
from edgemeta.records import nearest

FORWARD_BATCH = 32  # samples computed at once: no more memory than training; fixed, as the last bits depend on it
Labels = NDArray[np.int64]


class Steps(NamedTuple):
    """What an adaptation is told: how many steps of SGD, their rate, and at most how many samples in a step.

    reject: the share of the participant's own samples that may be called none of its classes; 0: none is.
    rates: by which each parameter's is multiplied; None: by one.
    """

    number: int
    lr: float
    batch_size: int
    reject: float = 0.0
    rates: Vector | None = None


class Own(NamedTuple):
    """A participant's own model. classes: the label of each output, in order; None: those of the model that it was.

    scale: of the squared distances that its last layer says, where that is still what prototypes made; reject: the
    squared distance to the nearest class beyond which a sample is none of them.
    """

    model: Model
    theta: Vector
    classes: Labels | None = None
    scale: float | None = None
    reject: float | None = None


Adapt = Callable[[Model, Vector, Samples, Steps, np.random.Generator], Own]


@dataclass(frozen=True)
class Adaptation:
    """adapt: see above. steps: how many it takes unless told; stepless: it never takes any. cost: of a support set.

    from_head: whether it goes on from the head that a model has; rated: whether it takes learned rates.
    """

    adapt: Adapt
    steps: int
    cost: str
    paper: str
    stepless: bool = False
    from_head: bool = False
    rated: bool = False


def sgd(model: Model, theta: Vector, support: Samples, steps: Steps, rng: np.random.Generator) -> Own:
    """Steps of SGD on all parameters; an embedding's head begins at zero."""
    if not model.embeds:
        return Own(model, descended(model, theta, support, steps, rng))
    classes, places = _classes(support)
    own = with_head(model, len(classes))
    start = np.concatenate([theta, np.zeros(own.layout.size - theta.size, theta.dtype)])
    return Own(own, descended(own, start, Samples(support.x, places), steps, rng), classes)


def head(model: Model, theta: Vector, support: Samples, steps: Steps, rng: np.random.Generator) -> Own:
    """Steps of SGD on the last layer only; what is below it sees each sample once. An embedding's begins at zero."""
    body, own, classes, y = body_of(model), model, None, support.y
    if model.embeds:
        classes, y = _classes(support)
        own = with_head(model, len(classes))
    z, below = features(body, theta, support), body.layout.size
    last = Model([Dense(own.outputs)], (body.outputs,), own.loss, threads=model.threads)
    top = np.zeros(last.layout.size, theta.dtype) if model.embeds else theta[below:]
    return Own(own, np.concatenate([theta[:below], descended(last, top, Samples(z, y), steps, rng)]), classes)


def known(model: Model, theta: Vector, support: Samples, _steps: Steps, _rng: np.random.Generator) -> Own:
    """No step: the outputs of classes that the support set does not have are left out."""
    below, (classes, _) = body_of(model).layout.size, _classes(support)
    weight, bias = (model.layout.views(theta)[name] for name, _ in model.layout.entries[-2:])
    own = np.concatenate([theta[:below], weight[:, classes].ravel(), bias[classes]])
    return Own(with_head(model, len(classes)), own, classes)


def prototypes(model: Model, theta: Vector, support: Samples, steps: Steps, rng: np.random.Generator) -> Own:
    """A head of the classes' mean embeddings; and, if asked, steps of SGD on all parameters from there.

    Its scale is the one under which the support set, each sample left out of its class's mean, is the most likely.
    """
    own = with_prototypes(model, theta, features(body_of(model), theta, support), support.y, steps.reject)
    if not steps.number:
        return own
    places = np.searchsorted(_classes(support)[0], support.y).astype(np.int64)
    return Own(own.model, descended(own.model, own.theta, Samples(support.x, places), steps, rng), own.classes)


def ridge(model: Model, theta: Vector, support: Samples, _steps: Steps, _rng: np.random.Generator) -> Own:
    """No step: a head by ridge regression of the classes on the support set's features, in closed form."""
    body, (classes, places) = body_of(model), _classes(support)
    weight, bias = ridge_head(features(body, theta, support), places, len(classes))
    made = np.concatenate([theta[: body.layout.size], weight.ravel(), bias])
    return Own(with_head(model, len(classes)), made, classes)


def with_prototypes(model: Model, theta: Vector, z: Vector, y: Labels, reject: float = 0.0) -> Own:
    """Return a model with the head that some samples' features (N, E) and labels (N,) make; reject: as in `Steps`."""
    (classes, centres, _), scale = means(z, y), fitted_scale(z, y)
    weight, bias = head_of(centres, scale)
    made = np.concatenate([theta[: body_of(model).layout.size], weight.ravel(), bias])
    most = beyond(z, y, reject) if reject else None
    return Own(with_head(model, len(classes)), made, classes.astype(np.int64), scale, most)


ADAPTATIONS: dict[str, Adaptation] = {
    "sgd": Adaptation(
        sgd,
        steps=5,
        cost="forward and backward of a batch each step, and a second vector of the model's size",
        paper="Finn et al. 2017, arXiv:1703.03400",
        from_head=True,
        rated=True,
    ),
    "head": Adaptation(
        head,
        steps=5,
        cost="one forward of each sample, whose features are kept",
        paper="Collins et al. 2021, arXiv:2102.07078",
        from_head=True,
    ),
    "known": Adaptation(
        known,
        steps=0,
        cost="none: only labels are looked at",
        paper="none: it leaves out what is not there",
        stepless=True,
    ),
    "prototypes": Adaptation(
        prototypes,
        steps=0,
        cost="one forward of each sample, whose features are kept; with steps, those of `sgd` too",
        paper="Snell et al. 2017, arXiv:1703.05175; with steps Triantafillou et al. 2020, arXiv:1903.03096",
    ),
    "ridge": Adaptation(
        ridge,
        steps=0,
        cost="one forward of each sample, and a singular value decomposition of their features in float64",
        paper="Bertinetto et al. 2019, arXiv:1805.08136",
        stepless=True,
    ),
}


def usual_of(model: Model) -> str:
    """Return the name of the adaptation that a model has unless told."""
    return "prototypes" if model.embeds else "sgd"


def adaptation_of(name: str | None, model: Model) -> Adaptation:
    """Return an adaptation by name, or the usual one of a model; raises ConfigError for one that it cannot have."""
    name = name or usual_of(model)
    if name not in ADAPTATIONS:
        raise ConfigError(f"unknown adaptation '{name}': {nearest(name, list(ADAPTATIONS))}")
    if name == "known" and model.embeds:
        raise ConfigError("adaptation 'known' leaves classes out, and an embedding has none: take 'prototypes'")
    if name != "sgd" and not (model.classifies or model.embeds):
        raise ConfigError(f"adaptation '{name}' is for classes, and this model has targets: take 'sgd'")
    return ADAPTATIONS[name]


def checked(settings: EvaluationConfig, model: Model) -> Adaptation:
    """Return the adaptation that the settings name; raises ConfigError where it cannot be of this model, or so."""
    row, grid = adaptation_of(settings.adaptation, model), [steps for steps, _ in settings.grid]
    check_reject(settings.reject, settings.adaptation, settings.adapt_steps, model)
    if row.stepless and any([settings.adapt_steps, *grid]):
        raise ConfigError(f"adaptation '{settings.adaptation}' takes no steps: give 0, or take 'head' or 'sgd'")
    return row


def check_reject(rate: float, name: str | None, steps: int | None, model: Model) -> None:
    """Raise ConfigError where "none of these" is asked for of a model that prototypes do not make, or steps change."""
    if rate and ((name or usual_of(model)) != "prototypes" or steps):
        how = f"adaptation '{name or usual_of(model)}'" + (f" with {steps} steps" if steps else "")
        raise ConfigError(
            f"reject {rate:g} is a distance to prototypes: {how} has none; take 'prototypes' without steps"
        )


def begun(
    settings: EvaluationConfig, model: Model, theta: Vector, beside: Vectors, classes: int
) -> tuple[Model, Vector, Vector | None]:
    """Return what is adapted, and the rates, where they were learned and the adaptation takes them.

    That is the model with the head beside it, if there is one and the adaptation goes on from it. beside: vectors by
    name, as they were trained beside theta. classes: how many the participant has: so many of a head's outputs are
    kept, where all share it.
    """
    row, head = adaptation_of(settings.adaptation, model), beside.get(OWN_HEAD, beside.get(HEAD))
    rates = beside.get(RATES) if row.rated else None
    if head is None or (model.embeds and not row.from_head):
        return model, theta, rates
    whole, theta = with_own_head(model, theta, head)
    if OWN_HEAD in beside:
        return whole, theta, rates
    if classes > whole.outputs:
        raise DataError(f"{classes} classes, and this run's head is for {whole.outputs}: use fewer")
    own, theta = first_outputs(whole, theta, classes)
    return own, theta, None if rates is None else first_outputs(whole, rates, classes)[1]


def adapt_as(
    settings: EvaluationConfig,
    model: Model,
    theta: Vector,
    support: Samples,
    batch_size: int,
    rng: np.random.Generator,
    steps: int | None = None,
    rates: Vector | None = None,
) -> Own:
    """Return a participant's own model, as a run's evaluations make it.

    steps: instead of those of the settings; rates: what `begun` has found of them.
    """
    row = adaptation_of(settings.adaptation, model)
    counts = (steps, settings.adapt_steps, row.steps)
    count = next(count for count in counts if count is not None)
    told = Steps(count, settings.adapt_lr, batch_size, reject=settings.reject, rates=rates)
    return row.adapt(model, theta, support, told, rng)


@np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the scores
def descended(model: Model, theta: Vector, support: Samples, steps: Steps, rng: np.random.Generator) -> Vector:
    """Return new parameters, some steps of SGD from theta on the support set.

    A step uses the whole support set when it fits `batch_size`, else a batch drawn from it.
    """
    theta = theta.copy()
    for _ in lengthy("adapting", range(steps.number)):
        batch = support
        if support.size > steps.batch_size:
            batch = support.take(rng.choice(support.size, steps.batch_size, replace=False))
        if steps.rates is None:
            model.descend(theta, batch.x, batch.y, steps.lr, out=theta)
        else:
            subtract_scaled(theta, model.loss_and_grad(theta, batch.x, batch.y)[1] * steps.rates, steps.lr)
    return theta


def features(body: Model, theta: Vector, samples: Samples) -> Vector:
    """Return the body's outputs (N, E), computed some samples at a time. theta: of a model that begins with it."""
    below = theta[: body.layout.size]
    blocks = range(0, samples.size, FORWARD_BATCH)
    return np.concatenate(
        [
            body.forward(below, samples.x[start : start + FORWARD_BATCH])
            for start in lengthy("looking at samples", blocks)
        ]
    )


def _classes(support: Samples) -> tuple[Labels, Labels]:
    """Return the labels that there are, and each sample's place among them."""
    classes, places = np.unique(support.y, return_inverse=True)
    return classes.astype(np.int64), places.reshape(-1).astype(np.int64)
