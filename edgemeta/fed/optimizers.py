"""The server's step: from a round's aggregated update to the next global model. The rows of `OPTIMIZERS`.

The update, delta = clients - server, is what takes the place of a negative gradient (Reddi et al. 2021). A row is a
pair: `init` makes what the optimiser keeps from one round to the next, vectors by name, and `apply` takes a step.
No argument is written to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemeta.nn import Vector
from edgemeta.records import number

Kept = Mapping[str, Vector]


@dataclass(frozen=True)
class Optimizer:
    """init: (theta, settings) -> kept. apply: (theta, delta, kept, settings) -> (theta, kept). All (size,) float32."""

    init: Callable[[Vector, Any], Kept]
    apply: Callable[[Vector, Vector, Kept, Any], tuple[Vector, Kept]]
    settings: type
    paper: str


@dataclass(frozen=True)
class Sgd:
    """lr: the server's rate; 1 is FedAvg."""

    lr: float = number(1.0, 0, above=True)


@dataclass(frozen=True)
class Momentum:
    """lr: the server's rate; momentum: the share of the last step's velocity that stays."""

    lr: float = number(1.0, 0, above=True)
    momentum: float = number(0.9, 0, 1)


@dataclass(frozen=True)
class Adam:
    """lr: the server's rate; beta1, beta2: what stays of the moments; tau: how far from dividing by zero."""

    lr: float = number(0.1, 0, above=True)
    beta1: float = number(0.9, 0, 1)
    beta2: float = number(0.99, 0, 1)
    tau: float = number(1e-3, 0, above=True)


@dataclass(frozen=True)
class Adagrad:
    """lr: the server's rate; tau: how far from dividing by zero."""

    lr: float = number(0.1, 0, above=True)
    tau: float = number(1e-3, 0, above=True)


def sgd(theta: Vector, delta: Vector, kept: Kept, settings: Sgd) -> tuple[Vector, Kept]:
    """theta + lr delta."""
    after = np.float32(settings.lr) * delta
    after += theta
    return after, kept


def momentum(theta: Vector, delta: Vector, kept: Kept, settings: Momentum) -> tuple[Vector, Kept]:
    """FedAvgM: v = momentum v + delta; theta + lr v."""
    velocity = np.float32(settings.momentum) * kept["velocity"] + delta
    return theta + np.float32(settings.lr) * velocity, {"velocity": velocity}


def adam(theta: Vector, delta: Vector, kept: Kept, settings: Adam) -> tuple[Vector, Kept]:
    """FedAdam: m = b1 m + (1 - b1) delta; v = b2 v + (1 - b2) delta^2; theta + lr m / (sqrt v + tau)."""
    first, second = np.float32(settings.beta1), np.float32(settings.beta2)
    mean = first * kept["mean"] + (1 - first) * delta
    square = second * kept["square"] + (1 - second) * delta * delta
    return _scaled(theta, mean, square, settings), {"mean": mean, "square": square}


def yogi(theta: Vector, delta: Vector, kept: Kept, settings: Adam) -> tuple[Vector, Kept]:
    """FedYogi: as FedAdam, but v = v - (1 - b2) delta^2 sign(v - delta^2)."""
    first, second = np.float32(settings.beta1), np.float32(settings.beta2)
    mean = first * kept["mean"] + (1 - first) * delta
    new, old = delta * delta, kept["square"]
    square = old - (1 - second) * new * np.sign(old - new)
    return _scaled(theta, mean, square, settings), {"mean": mean, "square": square}


def adagrad(theta: Vector, delta: Vector, kept: Kept, settings: Adagrad) -> tuple[Vector, Kept]:
    """FedAdagrad: v = v + delta^2; theta + lr delta / (sqrt v + tau)."""
    square = kept["square"] + delta * delta
    return _scaled(theta, delta, square, settings), {"square": square}


def _scaled(theta: Vector, mean: Vector, square: Vector, settings: Adam | Adagrad) -> Vector:
    return theta + np.float32(settings.lr) * mean / (np.sqrt(square) + np.float32(settings.tau))


def _moments(theta: Vector, settings: Adam) -> Kept:
    # Algorithm 2 starts with v = tau^2, and corrects no bias
    return {"mean": np.zeros_like(theta), "square": np.full_like(theta, settings.tau**2)}


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(lambda _theta, _settings: {}, sgd, Sgd, "McMahan et al. 2017, arXiv:1602.05629"),
    "momentum": Optimizer(
        lambda theta, _settings: {"velocity": np.zeros_like(theta)},
        momentum,
        Momentum,
        "Hsu et al. 2019, arXiv:1909.06335 (FedAvgM)",
    ),
    "adam": Optimizer(_moments, adam, Adam, "Reddi et al. 2021, arXiv:2003.00295 (FedAdam)"),
    "yogi": Optimizer(_moments, yogi, Adam, "Reddi et al. 2021, arXiv:2003.00295 (FedYogi)"),
    "adagrad": Optimizer(
        lambda theta, settings: {"square": np.full_like(theta, settings.tau**2)},
        adagrad,
        Adagrad,
        "Reddi et al. 2021, arXiv:2003.00295 (FedAdagrad)",
    ),
}
