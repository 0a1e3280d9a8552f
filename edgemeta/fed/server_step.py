"""From a round's updates to the next global model, and what the server keeps beside it until the next round."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from edgemeta.config import PhaseConfig, ServerConfig
from edgemeta.fed.aggregate import AGGREGATORS
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.optimizers import OPTIMIZERS
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress
from edgemeta.fed.upload import decode
from edgemeta.meta.learners import learner
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import encode_tensors, load_parameters, read_tensors, save_model
from edgemeta.records import record_from
from edgemeta.storage import write_atomic

Vectors = Mapping[str, Vector]


class ServerState(NamedTuple):
    """shared: the vectors that travel beside theta; optimizer: what the server's optimiser keeps. By name."""

    shared: Vectors = MappingProxyType({})
    optimizer: Vectors = MappingProxyType({})


def travelling(state: ServerState, recipe: PhaseConfig) -> dict[str, Vector]:
    """Return the vectors that go to participants beside theta."""
    return {name: state.shared[name] for name in learner(recipe.algorithm).shared}


def fold(
    server: ServerConfig, recipe: PhaseConfig, sizes: Mapping[str, int], updates: Sequence[tuple[Path, int]]
) -> dict[str, Vector]:
    """Return each travelling vector's aggregated delta. updates: (file, weight), in order of participant number."""
    row = AGGREGATORS[server.aggregator]
    settings: Any = record_from(row.settings, server.aggregator_settings)
    return {
        name: row.fold(
            ((decode(read_tensors(path)[0], sizes, recipe.upload)[name], weight) for path, weight in updates),
            size,
            settings,
        )
        for name, size in sizes.items()
    }


def step(server: ServerConfig, theta: Vector, state: ServerState, deltas: Vectors) -> tuple[Vector, ServerState]:
    """Return the next theta and state: theta takes the optimiser's step, and what travels beside it is added to."""
    row = OPTIMIZERS[server.optimizer]
    settings: Any = record_from(row.settings, server.optimizer_settings)
    theta, kept = row.apply(theta, deltas["theta"], state.optimizer or row.init(theta, settings), settings)
    shared = {name: vector + deltas[name] if name in deltas else vector for name, vector in state.shared.items()}
    return theta, ServerState(shared, kept)


def begin(directory: RunDirectory, plan: Plan, model: Model, theta: Vector) -> None:
    """Write what a new run starts from."""
    _keep(directory, plan, model, 0, theta, ServerState())


def advance(
    directory: RunDirectory,
    plan: Plan,
    model: Model,
    progress: Progress,
    sizes: Mapping[str, int],
    weights: Mapping[int, int],
) -> None:
    """Write what the updates of the round at work lead to; it counts when the progress says so.

    weights: participant -> number of samples, in the order in which the updates are folded.
    """
    server, number = plan.server, progress.round
    _, theta, _, _ = load_parameters(directory.round_model(progress.model))
    state = load_state(directory.round_state(progress.model))
    files = [(directory.update_path(number, k), weight) for k, weight in weights.items()]
    theta, state = step(server, theta, state, fold(server, plan.recipe(number), sizes, files))
    _keep(directory, plan, model, number, theta, state)


def _keep(
    directory: RunDirectory, plan: Plan, model: Model, round_number: int, theta: Vector, state: ServerState
) -> None:
    """Write a round's model, and before it what is kept beside it: also the vectors that the next round sends first."""
    new = learner(plan.recipe(round_number + 1).algorithm).shared
    shared = {name: start(model) for name, start in new.items() if name not in state.shared} | dict(state.shared)
    parts = {"shared": shared, "optimizer": state.optimizer}
    tensors = {f"{part}.{name}": vector for part, kept in parts.items() for name, vector in kept.items()}
    if tensors:
        write_atomic(directory.round_state(round_number), encode_tensors(tensors, {}))
    classes = plan.config.model.classes
    assert isinstance(classes, tuple)  # resolved
    save_model(directory.round_model(round_number), model, theta, classes, round_number)


def load_state(path: Path) -> ServerState:
    """Return the state in a file, in memory of its own, empty where there is none; raises ModelFileError."""
    parts: dict[str, dict[str, Vector]] = {"shared": {}, "optimizer": {}}
    if path.exists():
        for key, tensor in read_tensors(path)[0].items():
            part, _, name = key.partition(".")
            parts[part][name] = np.array(tensor)
    return ServerState(**parts)
