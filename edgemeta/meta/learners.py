"""The learners, by name (`edgemeta.meta.learner` says what one is), and what follows from a name."""

from collections.abc import Callable, Sequence

import numpy as np

from edgemeta.config import PhaseConfig
from edgemeta.errors import ConfigError
from edgemeta.meta.learner import Directions, GradientAt, Learner, Vectors, descend
from edgemeta.meta.maml import (
    RATES,
    FiniteDifference,
    anil,
    begin_rates,
    meta_sgd,
    one_plain_step,
    one_step_only,
    perfedavg_hf,
)
from edgemeta.meta.personal_heads import (
    OWN_HEAD,
    HeadFirst,
    begin_own_head,
    body_only,
    fedbabu,
    fedper,
    fedrep,
    head_first,
    two_steps,
)
from edgemeta.meta.protonet import Prototypes, by_class, protonet
from edgemeta.meta.proximal import Proximal, begin_start, fedprox
from edgemeta.meta.rivals import HEAD, begin_head
from edgemeta.meta.samples import Samples
from edgemeta.meta.variates import OWN_VARIATE, VARIATE, begin_variate, end_scaffold, no_momentum, scaffold
from edgemeta.nn import Model, Vector, Workspace
from edgemeta.nn.heads import body_size, headed
from edgemeta.records import nearest


def fedavg(
    _model: Model, vectors: Vectors, batches: Sequence[Samples], _recipe: PhaseConfig, _workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Plain local SGD: the gradient on one batch."""
    return [], {"theta": GradientAt(vectors["theta"], batches[0])}


def fomaml(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """First-order MAML: the query gradient, taken at the parameters that the support set adapted."""
    support, query = batches
    adapted, _ = descend(model, vectors["theta"], [support] * recipe.inner_steps, recipe.inner_lr, workspace)
    return [], {"theta": GradientAt(adapted, query)}


def reptile(
    model: Model, vectors: Vectors, batches: Sequence[Samples], recipe: PhaseConfig, workspace: Workspace
) -> tuple[Sequence[float], Directions]:
    """Reptile: towards where `inner_steps` steps on as many batches lead."""
    adapted, losses = descend(model, vectors["theta"], batches, recipe.inner_lr, workspace)
    return losses, {"theta": np.subtract(vectors["theta"], adapted, out=adapted)}


LEARNERS: dict[str, Learner] = {
    "fedavg": Learner(fedavg, lambda _: 1, lambda _: 1, "McMahan et al. 2017, arXiv:1602.05629"),
    "fomaml": Learner(
        fomaml,
        batches=lambda _: 2,
        evaluations=lambda r: r.inner_steps + 1,
        paper="Finn et al. 2017, arXiv:1703.03400",
        vectors=1,
    ),
    "reptile": Learner(
        reptile,
        batches=lambda r: r.inner_steps,
        evaluations=lambda r: r.inner_steps,
        paper="Nichol et al. 2018, arXiv:1803.02999",
        vectors=1,
    ),
    "protonet": Learner(
        protonet,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Snell et al. 2017, arXiv:1703.05175",
        settings=Prototypes,
        draw=by_class,
        embeds=True,
        vectors=1,
    ),
    "fedprox": Learner(
        fedprox,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Li et al. 2020, arXiv:1812.06127",
        begun={"start": begin_start},
        settings=Proximal,
        vectors=2,
    ),
    "scaffold": Learner(
        scaffold,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Karimireddy et al. 2020, arXiv:1910.06378",
        shared={VARIATE: begin_variate},
        private={OWN_VARIATE: begin_variate},
        ended=end_scaffold,
        of_all=(VARIATE,),
        unsound=no_momentum,
        vectors=3,
    ),
    "fedbabu": Learner(
        fedbabu,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Oh et al. 2022, arXiv:2106.06042",
        apart=True,
        moves=body_only,
        vectors=1,
    ),
    "fedper": Learner(
        fedper,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Arivazhagan et al. 2019, arXiv:1912.00818",
        private={OWN_HEAD: begin_own_head},
        apart=True,
    ),
    "fedrep": Learner(
        fedrep,
        batches=lambda _: 1,
        evaluations=lambda _: 1,
        paper="Collins et al. 2021, arXiv:2102.07078",
        private={OWN_HEAD: begin_own_head},
        settings=HeadFirst,
        apart=True,
        moves=head_first,
        vectors=1,
        unsound=two_steps,
    ),
    "anil": Learner(
        anil,
        batches=lambda _: 2,
        evaluations=lambda r: r.inner_steps + 1,
        paper="Raghu et al. 2020, arXiv:1909.09157",
        apart=True,
        vectors=1,
    ),
    "meta-sgd": Learner(
        meta_sgd,
        batches=lambda _: 2,
        evaluations=lambda _: 2,
        paper="Li et al. 2017, arXiv:1707.09835",
        shared={RATES: begin_rates},
        unsound=one_plain_step,
        vectors=4,
    ),
    "perfedavg-hf": Learner(
        perfedavg_hf,
        batches=lambda _: 3,
        evaluations=lambda _: 4,
        paper="Fallah et al. 2020, arXiv:2002.07948",
        settings=FiniteDifference,
        unsound=one_step_only,
        vectors=3,
    ),
}


def learner(name: str) -> Learner:
    """Return a learner by name; raises ConfigError that lists the known ones."""
    if name not in LEARNERS:
        raise ConfigError(f"unknown algorithm '{name}': {nearest(name, list(LEARNERS))}")
    return LEARNERS[name]


def keeps_head(algorithm: str) -> bool:
    """Say whether every participant has a head of its own with a learner, and theta travels without one."""
    return OWN_HEAD in learner(algorithm).private


def numbers_classes(algorithm: str) -> bool:
    """Say whether a learner trains a head that all share, and for which own classes are numbered."""
    return not learner(algorithm).embeds and not keeps_head(algorithm)


def trained(model: Model, algorithm: str, classes: int) -> Model:
    """Return the network that a learner's steps are on: an embedding has its head on, unless the learner needs none.

    classes: how many the participant has.
    """
    if not model.embeds or learner(algorithm).embeds:
        return model
    return headed(model, classes) if keeps_head(algorithm) else model.headed or model


def shared_of(model: Model, algorithm: str) -> dict[str, Callable[[Model], Vector]]:
    """Return name -> first value of the vectors that travel with a learner beside theta."""
    head = {HEAD: begin_head} if model.headed and numbers_classes(algorithm) else {}
    return {**learner(algorithm).shared, **head}


def sizes(model: Model, algorithm: str | None) -> dict[str, int]:
    """Return how many numbers each vector has that travels with a learner; theta alone where there is none."""
    beside = shared_of(model, algorithm) if algorithm else {}
    theta = body_size(model) if algorithm and keeps_head(algorithm) else model.layout.size
    return {"theta": theta} | {name: start(model).size for name, start in beside.items()}
