"""The learners, held against their definitions."""

import inspect
import re
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gradients import Array
from starts import shared

from edgemeta.config import PhaseConfig
from edgemeta.errors import ConfigError
from edgemeta.meta import LEARNERS, Samples, begin, take_step
from edgemeta.meta.learner import GradientAt, descend
from edgemeta.meta.learners import fedavg, fomaml, learner, reptile
from edgemeta.meta.maml import anil, meta_sgd, perfedavg_hf
from edgemeta.meta.personal_heads import fedbabu, fedper, fedrep
from edgemeta.meta.protonet import protonet
from edgemeta.meta.proximal import fedprox
from edgemeta.meta.variates import scaffold
from edgemeta.nn import Dense, Model, ReLU, Workspace, build

pytestmark = pytest.mark.board

LINE = Model([Dense(1)], (1,), "mse")  # y = w x + b, with theta = (w, b)
ONE = Samples(np.array([[1.0]]), np.array([[0.0]]))  # the loss is (w + b)^2, its gradient 2 (w + b) in both
TABLE = {
    "fedavg": (fedavg, "1602.05629"),
    "fomaml": (fomaml, "1703.03400"),
    "reptile": (reptile, "1803.02999"),
    "protonet": (protonet, "1703.05175"),
    "fedprox": (fedprox, "1812.06127"),
    "scaffold": (scaffold, "1910.06378"),
    "fedbabu": (fedbabu, "2106.06042"),
    "fedper": (fedper, "1912.00818"),
    "fedrep": (fedrep, "2102.07078"),
    "anil": (anil, "1909.09157"),
    "meta-sgd": (meta_sgd, "1707.09835"),
    "perfedavg-hf": (perfedavg_hf, "2002.07948"),
}


def draw(model: Model, count: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *model.input_shape)).astype(np.float32)
    return Samples(x, rng.integers(0, model.outputs, count, np.int64))


def test_the_table_of_names_functions_and_papers() -> None:
    assert {name: (entry.direct, re.findall(r"arXiv:(\d+\.\d+)", entry.paper)) for name, entry in LEARNERS.items()} == {
        name: (function, [paper]) for name, (function, paper) in TABLE.items()
    }
    for name, entry in LEARNERS.items():
        assert entry.direct.__name__ == name.replace("-", "_")
        assert inspect.getdoc(entry.direct)
        assert learner(name) is entry
    with pytest.raises(ConfigError, match="unknown algorithm 'fomanl': did you mean 'fomaml'"):
        learner("fomanl")


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_every_learner_trains_and_counts_its_gradients(name: str, inner_steps: int) -> None:
    loss = "prototypes" if LEARNERS[name].embeds else "cross-entropy"
    model, calls = Model([Dense(5), ReLU(), Dense(2)], (3,), loss), 0
    recipe = PhaseConfig(algorithm=name, batch_size=8, lr=0.5, inner_lr=0.2, inner_steps=inner_steps)
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    data = Samples(x, (x[:, 0] > x[:, 1]).astype(np.int64))

    class Counting(Model):
        def _backpropagate(self, *arguments: Any) -> float:
            nonlocal calls
            calls += 1
            return super()._backpropagate(*arguments)

    theta = model.init(0)
    state = begin(model, recipe, shared(model, recipe, theta), {})
    counting = Counting(model.layers, (3,), loss)
    for step in range(60):
        take_step(counting, recipe, state, data, np.random.default_rng([1, step]), Workspace())
    assert calls == 60 * LEARNERS[name].evaluations(recipe)
    assert model.loss_and_grad(state.vectors["theta"], *data)[0] < 0.5 * model.loss_and_grad(theta, *data)[0]
    assert state.vectors["theta"].dtype == np.float32
    assert theta.tobytes() == model.init(0).tobytes()  # the start is not the learner's to change


@pytest.mark.parametrize("inner_steps", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_meta_gradient_is_the_query_gradient_at_the_adapted_parameters(inner_steps: int, dtype: type) -> None:
    model = build("cnn-small", (6, 5, 1), 3)
    theta, support, query = model.init(2).astype(dtype), draw(model, 7, 0), draw(model, 5, 1)
    adapted = theta.copy()
    for _ in range(inner_steps):
        adapted = adapted - 0.3 * model.loss_and_grad(adapted, support.x, support.y)[1]
    expected = model.loss_and_grad(adapted, query.x, query.y)[1]

    recipe = PhaseConfig(algorithm="fomaml", inner_steps=inner_steps, inner_lr=0.3)
    losses, directions = fomaml(model, {"theta": theta}, [support, query], recipe, Workspace())
    assert (losses, list(directions)) == ([], ["theta"])
    at = directions["theta"]
    assert isinstance(at, GradientAt)
    assert at.theta.tobytes() == adapted.tobytes()
    assert at.samples is query
    # ... which is another one than that at the parameters themselves.
    assert np.linalg.norm(expected - model.loss_and_grad(theta, query.x, query.y)[1]) > 0.05 * np.linalg.norm(expected)


def test_a_fomaml_step_descends_along_it() -> None:
    model = build("cnn-small", (6, 5, 1), 3)
    recipe = PhaseConfig(algorithm="fomaml", inner_steps=2, inner_lr=0.3, lr=0.1, batch_size=4)
    theta, data = model.init(2), draw(model, 20, 0)
    state = begin(model, recipe, {"theta": theta}, {})
    take_step(model, recipe, state, data, np.random.default_rng(0), Workspace())
    support, query = (data.take(state.order[part]) for part in (slice(0, 4), slice(4, 8)))
    adapted = theta
    for _ in range(2):
        adapted = adapted - 0.3 * model.loss_and_grad(adapted, support.x, support.y)[1]
    expected = theta - 0.1 * model.loss_and_grad(adapted, query.x, query.y)[1]
    assert state.vectors["theta"].tobytes() == expected.tobytes()


def test_fomaml_by_hand() -> None:
    recipe = PhaseConfig(algorithm="fomaml", inner_lr=0.125)
    # Support: (w + b)^2 at (1, 1) has gradient (4, 4): adapted to (.5, .5). Query: x = 2, y = 1, so the error is
    # 2 * .5 + .5 - 1 = .5, the loss .25 and its gradient 2 * .5 * (2, 1).
    query = Samples(np.array([[2.0]]), np.array([[1.0]]))
    _, directions = fomaml(LINE, {"theta": np.array([1.0, 1.0])}, [ONE, query], recipe, Workspace())
    at = directions["theta"]
    assert isinstance(at, GradientAt)
    loss, gradient = LINE.loss_and_grad(at.theta, *at.samples)
    assert (loss, gradient.tolist()) == (0.25, [2.0, 1.0])


def test_reptile_by_hand() -> None:
    recipe = PhaseConfig(algorithm="reptile", inner_lr=0.125, inner_steps=2)
    theta = np.array([1.0, 1.0])
    # (1, 1) with loss 4 and gradient 4 -> (.5, .5) with loss 1 and gradient 2 -> (.25, .25)
    losses, directions = reptile(LINE, {"theta": theta}, [ONE, ONE], recipe, Workspace())
    assert isinstance(directions["theta"], np.ndarray)
    assert (losses, directions["theta"].tolist(), theta.tolist()) == ([4.0, 1.0], [0.75, 0.75], [1.0, 1.0])
    state = begin(LINE, recipe, {"theta": theta}, {})
    data = Samples(np.repeat(ONE.x, 2, axis=0), np.repeat(ONE.y, 2, axis=0))
    take_step(LINE, replace(recipe, lr=0.5), state, data, np.random.default_rng(0), Workspace())
    assert state.vectors["theta"].tolist() == [0.625, 0.625]  # half of the way from 1 to .25
    assert state.loss_sum == 2.5


def test_reptile_uses_its_batches_one_after_the_other() -> None:
    model = Model([Dense(3)], (2,))
    theta, batches = model.init(0), [draw(model, 4, seed) for seed in range(3)]
    there = theta
    for batch in batches:
        there = there - 0.2 * model.loss_and_grad(there, batch.x, batch.y)[1]
    recipe = PhaseConfig(algorithm="reptile", inner_lr=0.2, inner_steps=3)
    _, directions = reptile(model, {"theta": theta}, batches, recipe, Workspace())
    assert isinstance(directions["theta"], np.ndarray)
    assert directions["theta"].tobytes() == (theta - there).tobytes()


def test_fedavg_is_plain_sgd() -> None:
    model = Model([Dense(4), ReLU(), Dense(3)], (2,))
    recipe = PhaseConfig(algorithm="fedavg", batch_size=5, lr=0.1)
    data, theta = draw(model, 15, 0), model.init(0)
    state = begin(model, recipe, {"theta": theta}, {})
    for step in range(3):
        take_step(model, recipe, state, data, np.random.default_rng(step), Workspace())
        batch = data.take(state.order[5 * step : 5 * step + 5])
        theta = theta - 0.1 * model.loss_and_grad(theta, batch.x, batch.y)[1]
    assert state.vectors["theta"].tobytes() == theta.tobytes()


def test_descend_by_hand_and_in_other_memory() -> None:
    theta: Array = np.array([1.0, 1.0])
    adapted, losses = descend(LINE, theta, [ONE] * 3, 0.125, Workspace())
    assert (adapted.tolist(), losses, theta.tolist()) == ([0.125, 0.125], [4.0, 1.0, 0.25], [1.0, 1.0])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.counted
def test_steps_after_the_first_make_no_vector_of_the_models_size(name: str) -> None:
    """Not the gradient, nor the adapted parameters, nor what momentum and decay add: the workspace has them."""
    model = Model([Dense(400), Dense(2)], (1000,))  # 1.6 MB, where an update works through 0.26 MB at once
    recipe = PhaseConfig(algorithm=name, batch_size=2, inner_steps=2, momentum=0.5, weight_decay=0.1)
    state, workspace = begin(model, recipe, shared(model, recipe, model.init(0)), {}), Workspace()
    data = Samples(np.zeros((8, 1000), np.float32), np.zeros(8, np.int64))
    for step in range(2):
        take_step(model, recipe, state, data, np.random.default_rng(step), workspace)
    tracemalloc.start()
    try:
        for step in range(2, 5):
            take_step(model, recipe, state, data, np.random.default_rng(step), workspace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * model.layout.size // 2


def test_momentum_keeps_no_hold_of_scratch_memory() -> None:
    """What the state holds after a step is still there when the workspace is used again."""
    model, recipe = Model([Dense(3)], (2,)), PhaseConfig(batch_size=4, momentum=0.9, weight_decay=0.1)
    state, workspace = begin(model, recipe, {"theta": model.init(0)}, {}), Workspace()
    take_step(model, recipe, state, draw(model, 4, 0), np.random.default_rng(0), workspace)
    kept = {name: array.tobytes() for name, array in state.tensors().items()}
    for part in (workspace, *workspace._parts.values()):
        for buffer in part._buffers.values():
            buffer.fill(7)
    assert {name: array.tobytes() for name, array in state.tensors().items()} == kept
