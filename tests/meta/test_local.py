"""Local steps: momentum and decay by hand, batches, and stopping between any two steps."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starts import shared

from edgemeta.config import PhaseConfig
from edgemeta.errors import DataError
from edgemeta.meta import LEARNERS, LocalState, Samples, begin, steps_in, take_step
from edgemeta.nn import Dense, Model, ReLU, Vector, Workspace, build
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.storage import write_atomic

pytestmark = pytest.mark.board

LINE = Model([Dense(1)], (1,), "mse")  # at x = 1, y = 0 the loss is (w + b)^2, its gradient 2 (w + b) in both


class Recording(Model):
    """A model that notes which samples it was trained on: their first number is their index."""

    def __init__(self) -> None:
        super().__init__([Dense(2)], (1,))
        self.batches: list[list[int]] = []

    def _backpropagate(self, theta: Vector, x: Any, y: Any, *rest: Any) -> float:
        self.batches.append(x[:, 0].astype(int).tolist())
        assert y.tolist() == [index % 2 for index in self.batches[-1]]  # the labels come along
        return super()._backpropagate(theta, x * 0, y, *rest)


def numbered(count: int) -> Samples:
    indices = np.arange(count, dtype=np.int64)
    return Samples(indices[:, np.newaxis].astype(np.float32), indices % 2)


def batches_of(recipe: PhaseConfig, count: int, steps: int) -> list[list[int]]:
    model = Recording()
    state = begin(model, recipe, shared(model, recipe, model.init(0)), {})
    for step in range(steps):
        take_step(model, recipe, state, numbered(count), np.random.default_rng([5, step]), Workspace())
    return model.batches


def thetas(recipe: PhaseConfig, steps: int) -> list[list[float]]:
    state = begin(LINE, recipe, {"theta": np.array([1.0, 1.0])}, {})
    data, seen = Samples(np.array([[1.0]]), np.array([[0.0]])), []
    for _ in range(steps):
        take_step(LINE, recipe, state, data, np.random.default_rng(0), Workspace())
        seen.append(state.vectors["theta"].tolist())
    return seen


def test_plain_steps_by_hand() -> None:
    assert thetas(PhaseConfig(lr=0.125), 3) == [[0.5, 0.5], [0.25, 0.25], [0.125, 0.125]]


def test_momentum_by_hand() -> None:
    # gradients 4, 2, 0; velocities 4, .5*4+2 = 4, .5*4+0 = 2; so 1 -> .5 -> 0 -> -.25
    assert thetas(PhaseConfig(lr=0.125, momentum=0.5), 3) == [[0.5, 0.5], [0.0, 0.0], [-0.25, -0.25]]


def test_weight_decay_by_hand() -> None:
    # 4 + .5*1 = 4.5, so 1 - .5625 = .4375; then 1.75 + .21875 = 1.96875, so .4375 - .24609375
    assert thetas(PhaseConfig(lr=0.125, weight_decay=0.5), 2) == [[0.4375] * 2, [0.19140625] * 2]


def test_momentum_takes_up_the_decay() -> None:
    # 4.5 -> .4375; then .5*4.5 + 1.96875 = 4.21875, so .4375 - .52734375
    assert thetas(PhaseConfig(lr=0.125, weight_decay=0.5, momentum=0.5), 2) == [[0.4375] * 2, [-0.08984375] * 2]


@pytest.mark.parametrize("count", [2, 7, 8, 9, 16, 17, 23])
def test_the_batches_of_a_fomaml_step_are_disjoint(count: int) -> None:
    recipe = PhaseConfig(algorithm="fomaml", batch_size=4)
    batches = batches_of(recipe, count, 12)
    for support, query in zip(batches[::2], batches[1::2], strict=True):
        assert support
        assert query
        assert not set(support) & set(query)
        assert len(support) <= 4
        assert len(query) <= len(support)


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (10, 4), (3, 4), (1, 4), (5, 1)])
def test_a_pass_uses_every_sample_once(count: int, batch_size: int) -> None:
    recipe = PhaseConfig(algorithm="fedavg", batch_size=batch_size, local_epochs=1)
    a_pass = steps_in(recipe, count)
    assert a_pass == -(-count // batch_size)
    batches = batches_of(recipe, count, 3 * a_pass)
    passes = [list(chain(*batches[i : i + a_pass])) for i in range(0, 3 * a_pass, a_pass)]
    assert [sorted(seen) for seen in passes] == [list(range(count))] * 3
    assert count < 5 or passes[0] != passes[1] != passes[2]  # shuffled anew


@pytest.mark.parametrize("name", [name for name, row in LEARNERS.items() if row.draw is None])
@pytest.mark.parametrize("count", [5, 8, 9, 12, 13, 16, 17, 24, 25, 29])
def test_local_epochs_are_whole_passes(name: str, count: int) -> None:
    recipe = PhaseConfig(algorithm=name, batch_size=4, inner_steps=3, local_epochs=2)
    batches = LEARNERS[name].batches(recipe)
    model = Recording()
    state = begin(model, recipe, shared(model, recipe, model.init(0)), {})
    orders = set()
    for step in range(steps_in(recipe, count)):
        take_step(model, recipe, state, numbered(count), np.random.default_rng([5, step]), Workspace())
        orders.add(state.order.tobytes())
    assert len(orders) == 2  # two shuffled passes were begun,
    assert count - state.cursor < batches  # and the second is over: what is left cannot be split
    used = [index for batch in model.batches for index in batch]
    assert set(used) <= set(range(count))


def test_steps_in_a_round() -> None:
    assert steps_in(PhaseConfig(), 1000) == 10
    assert steps_in(PhaseConfig(local_steps=3), 1000) == 3
    assert steps_in(PhaseConfig(local_epochs=2, batch_size=32), 65) == 6  # 32 + 32 + 1
    assert steps_in(PhaseConfig(algorithm="fomaml", local_epochs=2, batch_size=32), 65) == 2  # 64; one is no step
    assert steps_in(PhaseConfig(algorithm="fomaml", local_epochs=2, batch_size=32), 66) == 4  # 64 + 2
    assert steps_in(PhaseConfig(algorithm="reptile", inner_steps=5, local_epochs=1, batch_size=10), 104) == 2


@pytest.mark.parametrize("name", LEARNERS)
def test_too_few_samples_are_an_error_and_not_an_empty_round(name: str) -> None:
    recipe = PhaseConfig(algorithm=name, inner_steps=3, local_epochs=1)
    needed = LEARNERS[name].batches(recipe)
    assert steps_in(recipe, needed - 1) > 0
    with pytest.raises(DataError, match=f"{needed - 1} training samples: .* {needed} samples or more"):
        batches_of(recipe, needed - 1, 1)
    batches_of(recipe, needed, 1)


def fresh(model: Model, recipe: PhaseConfig) -> LocalState:
    return begin(model, recipe, shared(model, recipe, model.init(3)), {})


def steps(model: Model, recipe: PhaseConfig, state: LocalState, data: Samples, which: Sequence[int]) -> LocalState:
    for step in which:
        assert state.step == step
        take_step(model, recipe, state, data, np.random.default_rng([9, step]), Workspace())
    return state


def bits(state: LocalState) -> dict[str, tuple[str, bytes]]:
    return {name: (array.dtype.str, array.tobytes()) for name, array in state.tensors().items()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_stop_between_any_two_steps_changes_no_bit(name: str, momentum: float, tmp_path: Path) -> None:
    model = build("cnn-small", (6, 6, 1), 3)
    recipe = PhaseConfig(algorithm=name, batch_size=4, inner_steps=2, momentum=momentum, weight_decay=0.01)
    rng = np.random.default_rng(0)
    data = Samples(rng.integers(0, 256, (18, 6, 6, 1), np.uint8), rng.integers(0, 3, 18, np.int64))
    undisturbed = bits(steps(model, recipe, fresh(model, recipe), data, range(7)))
    for stop in range(8):
        state = steps(model, recipe, fresh(model, recipe), data, range(stop))
        write_atomic(tmp_path / "state", encode_tensors(state.tensors(), {}))
        read = LocalState.from_tensors(read_tensors(tmp_path / "state")[0])
        assert bits(read) == bits(state)
        assert bits(steps(model, recipe, read, data, range(stop, 7))) == undisturbed


def test_a_repeated_step_draws_the_same(tmp_path: Path) -> None:
    model = Model([Dense(3), ReLU(), Dense(2)], (1,))
    recipe, data = PhaseConfig(batch_size=3), numbered(7)
    state = steps(model, recipe, fresh(model, recipe), data, range(2))
    saved = {name: array.copy() for name, array in state.tensors().items()}
    once = bits(steps(model, recipe, state, data, [2]))
    assert bits(steps(model, recipe, LocalState.from_tensors(saved), data, [2])) == once


@pytest.mark.parametrize("count", [4, 20])
def test_data_that_shrank_or_grew_begins_a_new_pass(count: int) -> None:
    model, recipe = Recording(), PhaseConfig(batch_size=2)
    state = begin(model, recipe, shared(model, recipe, model.init(0)), {})
    take_step(model, recipe, state, numbered(10), np.random.default_rng(0), Workspace())
    for step in range(count // 2):
        take_step(model, recipe, state, numbered(count), np.random.default_rng([1, step]), Workspace())
    assert sorted(chain(*model.batches[1:])) == list(range(count))


def test_a_state_is_in_memory_of_its_own() -> None:
    theta, head = np.ones(4, np.float32), np.ones(2, np.float32)
    state = begin(Model([Dense(2)], (1,)), PhaseConfig(), {"theta": theta}, {"head": head})
    assert set(state.vectors) == {"theta", "head"}
    for vector in state.vectors.values():
        vector += 1
    assert theta.tolist() == [1] * 4
    assert head.tolist() == [1] * 2
    copy = LocalState.from_tensors(state.tensors())
    copy.vectors["theta"] += 1
    assert state.vectors["theta"].tolist() == [2] * 4


def test_the_loss_is_summed_over_the_steps() -> None:
    state = begin(LINE, PhaseConfig(lr=0.125), {"theta": np.array([1.0, 1.0])}, {})
    data = Samples(np.array([[1.0]]), np.array([[0.0]]))
    steps(LINE, PhaseConfig(lr=0.125), state, data, range(3))
    assert (state.loss_sum, state.step) == (5.25, 3)  # 4 + 1 + .25
