"""From a round's updates to the next global model, and what the server keeps beside it until the next round."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from edgemeta.config import PhaseConfig, ServerConfig
from edgemeta.fed.aggregate import AGGREGATORS
from edgemeta.fed.clipping import limits, norm, scales, together
from edgemeta.fed.directory import RunDirectory
from edgemeta.fed.messages import Delivered
from edgemeta.fed.optimizers import OPTIMIZERS
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Progress
from edgemeta.fed.selection import SELECTIONS
from edgemeta.fed.similar import Sketches, remembered, sketch
from edgemeta.fed.streams import Stream, generator
from edgemeta.fed.upload import Encoded, decode
from edgemeta.meta.learners import learner, numbers_classes, shared_of, sizes
from edgemeta.meta.maml import RATES
from edgemeta.meta.rivals import HEAD
from edgemeta.nn import Model, Vector
from edgemeta.nn.files import encode_tensors, load_parameters, opened, read_tensors, save_model
from edgemeta.reading import exists
from edgemeta.records import record_from
from edgemeta.storage import write_atomic

Vectors = Mapping[str, Vector]
SHARED, OPTIMIZER, SKETCHES = "shared.", "optimizer.", "sketches."  # before the names of vectors in the state's file


class ServerState(NamedTuple):
    """shared: the vectors that travel beside theta; optimizer: what the server's optimiser keeps. By name.

    sketches: of participants' updates, where the selection needs them.
    """

    shared: Vectors = MappingProxyType({})
    optimizer: Vectors = MappingProxyType({})
    sketches: Sketches = MappingProxyType({})


def travelling(state: ServerState, recipe: PhaseConfig) -> dict[str, Vector]:
    """Return the vectors that go to participants beside theta."""
    names = {*learner(recipe.algorithm).shared, *([HEAD] if numbers_classes(recipe.algorithm) else [])}
    return {name: vector for name, vector in state.shared.items() if name in names}


def scored_with(state: ServerState, recipe: PhaseConfig) -> dict[str, Vector]:
    """Return the vectors that go to participants beside theta when it is scored: a head, or learned rates."""
    return {name: vector for name, vector in travelling(state, recipe).items() if name in (HEAD, RATES)}


@dataclass(frozen=True)
class Counted:
    """An update that is folded in. scales: by how much which of its vectors is scaled down."""

    file: Path
    weight: int
    scales: Mapping[str, float]


def fold(
    server: ServerConfig, recipe: PhaseConfig, numbers: Mapping[str, int], updates: Sequence[Counted]
) -> dict[str, Vector]:
    """Return each travelling vector's aggregated delta. numbers: how many each has; updates: by participant."""
    row = AGGREGATORS[server.aggregator]
    settings: Any = record_from(row.settings, server.aggregator_settings)
    folded = {}
    for name, size in numbers.items():
        with closing(_deltas(name, recipe, numbers, updates)) as deltas:
            folded[name] = row.fold(deltas, size, settings)
    return folded


@dataclass(frozen=True)
class Scaled:
    """A vector in a message, scaled down as it is asked for."""

    vector: Encoded
    by: float

    def __getitem__(self, part: slice) -> Vector:
        return self.vector[part] * np.float32(self.by)


def _deltas(
    name: str, recipe: PhaseConfig, numbers: Mapping[str, int], updates: Sequence[Counted]
) -> Generator[tuple[Encoded | Scaled, int], None, None]:
    """Yield a vector's deltas, each to be read while it is folded in: one file is open at a time."""
    for update in updates:
        with opened(update.file) as (tensors, _):
            delta = decode(tensors, numbers, recipe.upload)[name]
            yield (Scaled(delta, update.scales[name]) if name in update.scales else delta), update.weight


def step(
    server: ServerConfig, theta: Vector, state: ServerState, deltas: Vectors, shares: Mapping[str, float]
) -> tuple[Vector, ServerState]:
    """Return the next theta and state: theta takes the optimiser's step, and what travels beside it is added to.

    shares: of a mean over all participants, the share of them that the deltas are of. Where theta travels without its
    head, that stays as it is.
    """
    row = OPTIMIZERS[server.optimizer]
    settings: Any = record_from(row.settings, server.optimizer_settings)
    size, before = deltas["theta"].size, theta
    delta = deltas["theta"] if size == theta.size else np.append(deltas["theta"], np.zeros_like(theta[size:]))
    theta, kept = row.apply(theta, delta, state.optimizer or row.init(theta, settings), settings)
    theta[size:] = before[size:]  # what an optimiser has left of earlier phases would move it
    moved = {name: np.float32(shares.get(name, 1)) * delta for name, delta in deltas.items()}
    shared = {name: vector + moved[name] if name in moved else vector for name, vector in state.shared.items()}
    return theta, ServerState(shared, kept, state.sketches)


def begin(directory: RunDirectory, plan: Plan, model: Model, theta: Vector) -> None:
    """Write what a new run starts from."""
    keep(directory, plan, model, 0, theta, ServerState())


@dataclass(frozen=True)
class Outcome:
    """What became of a round's updates: those that count, and of them those that were cut down; those left out."""

    counted: list[int]
    clipped: list[int]
    left_out: list[int]


def advance(
    directory: RunDirectory,
    plan: Plan,
    model: Model,
    progress: Progress,
    updates: Mapping[int, Delivered],
    weights: Mapping[int, int],
) -> Outcome:
    """Write what the updates of the round at work lead to; it counts when the progress says so.

    updates: in the order in which they are folded. An update that is far larger than what is usual is cut down to that.
    Where the result is not finite all the same, the largest one is left out, and the next; nothing is written when that
    leaves fewer than the round needs.
    """
    server, number = plan.server, progress.round
    most = limits(progress.norms, together(update.norms for update in updates.values()), server.clip)
    down = {k: scales(update.norms, most) for k, update in updates.items()}
    theta = load_parameters(directory.round_model(progress.model)).theta
    state = load_state(directory.round_state(progress.model))
    kept, recipe = list(updates), plan.recipe(number)
    numbers = sizes(model, recipe.algorithm)
    while len(kept) >= (server.min_fit_clients or 1):
        counted = [Counted(directory.update_path(number, k), weights[k], down[k]) for k in kept]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is looked at below
            shares = dict.fromkeys(learner(recipe.algorithm).of_all, len(counted) / plan.training)
            after = step(server, theta, state, fold(server, recipe, numbers, counted), shares)
        if _is_finite(*after):
            theta, state = after
            if SELECTIONS[server.selection].sketched:
                found = _sketched(plan.config.seed, recipe, numbers, dict(zip(kept, counted, strict=True)))
                state = state._replace(sketches=remembered(trained(state.sketches, progress), found))
            keep(directory, plan, model, number, theta, state)
            return Outcome(kept, [k for k in kept if down[k]], [k for k in updates if k not in kept])
        kept.remove(max(kept, key=lambda k: updates[k].norms["theta"]))
    return Outcome([], [], [k for k in updates if k not in kept])


def trained(sketches: Sketches, progress: Progress) -> Sketches:
    """Return the sketches of those whose updates count in the run; a number that was removed is free."""
    return {k: direction for k, direction in sketches.items() if str(k) in progress.counted}


def _sketched(seed: int, recipe: PhaseConfig, numbers: Mapping[str, int], updates: Mapping[int, Counted]) -> Sketches:
    """Return the sketches of a round's updates, by participant."""
    with closing(_deltas("theta", recipe, numbers, list(updates.values()))) as deltas:
        return {
            k: sketch(delta, numbers["theta"], generator(seed, Stream.SKETCH))
            for k, (delta, _) in zip(updates, deltas, strict=True)
        }


def _is_finite(theta: Vector, state: ServerState) -> bool:
    return all(math.isfinite(norm(vector)) for vector in (theta, *state.shared.values(), *state.optimizer.values()))


def keep(
    directory: RunDirectory, plan: Plan, model: Model, round_number: int, theta: Vector, state: ServerState
) -> None:
    """Write a round's model, and before it what is kept beside it: also the vectors that the next round sends first."""
    new = shared_of(model, plan.recipe(round_number + 1).algorithm)
    shared = {name: start(model) for name, start in new.items() if name not in state.shared} | dict(state.shared)
    parts = {SHARED: shared, OPTIMIZER: state.optimizer}
    tensors = {part + name: vector for part, kept in parts.items() for name, vector in kept.items()}
    if state.sketches:  # two tensors, as a header has no room for one of each of some thousand participants
        of, rows = zip(*sorted(state.sketches.items()), strict=True)
        tensors |= {SKETCHES + "of": np.array(of, np.int64), SKETCHES + "rows": np.stack(rows)}
    if tensors:
        write_atomic(directory.round_state(round_number), encode_tensors(tensors, {}))
    save_model(directory.round_model(round_number), model, theta, plan.config.model.names, round_number)


def load_state(path: Path) -> ServerState:
    """Return the state in a file, empty where there is none; raises ModelFileError and StorageError."""
    parts: dict[str, dict[str, Any]] = {SHARED: {}, OPTIMIZER: {}, SKETCHES: {}}
    if exists(path):
        for key, tensor in read_tensors(path)[0].items():
            part, dot, name = key.partition(".")
            parts[part + dot][name] = tensor
    rows = parts[SKETCHES]
    sketches = dict(zip(rows["of"].tolist(), rows["rows"], strict=True)) if rows else {}
    return ServerState(parts[SHARED], parts[OPTIMIZER], sketches)
