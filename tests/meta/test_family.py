"""The newer learners, each against its definition, worked out by hand or by other means; and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array
from runs import TINY

import edgemeta
from edgemeta.config import PhaseConfig, config_from
from edgemeta.errors import ConfigError
from edgemeta.fed.client import client_update
from edgemeta.fed.plan import resolve
from edgemeta.meta import LEARNERS, Samples, begin, take_step
from edgemeta.nn import Dense, Flatten, Model, ReLU, Vector, Workspace
from edgemeta.nn.files import read_tensors
from edgemeta.nn.heads import head_start

pytestmark = pytest.mark.board

LINE = Model([Dense(1)], (1,), "mse")  # y = w x + b, with theta = (w, b)
ONE = Samples(np.array([[1.0]]), np.array([[0.0]]))  # the loss is (w + b)², its gradient 2 (w + b) in both
CHAIN = Model([Dense(1), Dense(1)], (1,), "mse")  # y = v (w x + b) + c, with theta = (w, b, v, c)


def same(count: int) -> Samples:
    """Return ONE, so many times: every batch is the same then."""
    return Samples(np.repeat(ONE.x, count, axis=0), np.repeat(ONE.y, count, axis=0))


def thetas(model: Model, recipe: PhaseConfig, start: list[float], steps: int = 1) -> list[list[float]]:
    """Return theta after each of some local steps on samples that are all alike."""
    state, found = begin(model, recipe, {"theta": np.array(start)}, {}), []
    for _ in range(steps):
        take_step(model, recipe, state, same(4), np.random.default_rng(0), Workspace())
        found.append(state.vectors["theta"].tolist())
    return found


def direction(
    name: str, model: Model, vectors: Mapping[str, Vector], batches: list[Samples], **told: Any
) -> dict[str, Array]:
    """Return the directions of one step."""
    _, found = LEARNERS[name].direct(model, vectors, batches, PhaseConfig(algorithm=name, **told), Workspace())
    return {
        key: value if isinstance(value, np.ndarray) else model.loss_and_grad(value.theta, *value.samples)[1]
        for key, value in found.items()
    }


def sinusoids() -> tuple[Model, Array, list[Samples]]:
    """Return a small net of one input, parameters in float64, and three batches."""
    model, rng = Model([Dense(8), ReLU(), Dense(8), ReLU(), Dense(1)], (1,), "mse"), np.random.default_rng(0)
    x = [rng.uniform(-5, 5, (10, 1)) for _ in range(3)]
    return model, model.init(1).astype(np.float64), [Samples(part, 2 * np.sin(part + 1)) for part in x]


def test_fedprox_by_hand() -> None:
    # A gradient of 4, and no way gone: 1 - .5. Then one of 2, and 2 (.5 - 1): .5 - .125 (2 - 1).
    recipe = PhaseConfig(algorithm="fedprox", batch_size=1, lr=0.125, settings={"mu": 2.0})
    assert thetas(LINE, recipe, [1.0, 1.0], 2) == [[0.5, 0.5], [0.375, 0.375]]


def test_scaffold_by_hand() -> None:
    # Gradients 4, less 2 of its own, plus 1 of all: 1 - .125 * 3 = .625; then 2.5 - 1: .625 - .125 * 1.5 = .4375. The
    # mean gradient (4 + 2.5) / 2 = 3.25 is the new own variate, 1.25 above the old one, and so much the other moves.
    recipe = PhaseConfig(algorithm="scaffold", batch_size=1, lr=0.125, local_steps=2)
    shared, own = (
        {"theta": np.array([1.0, 1.0]), "variate": np.array([1.0, 1.0])},
        {"own_variate": np.array([2.0, 2.0])},
    )
    update = client_update(LINE, recipe, shared, own, same(4), np.random.default_rng)
    assert {name: delta.tolist() for name, delta in update.shared.items()} == {
        "theta": [-0.5625, -0.5625],
        "variate": [1.25, 1.25],
    }
    assert {name: vector.tolist() for name, vector in update.private.items()} == {"own_variate": [3.25, 3.25]}


def test_scaffolds_variate_is_the_mean_of_everyones_own(tmp_path: Path) -> None:
    """Also of those whom a round did not ask: here two of three are, in each of three rounds."""
    phase = {"algorithm": "scaffold", "rounds": 3, "local_steps": 2, "batch_size": 4}
    settings = TINY | {"phases": [phase], "server": {"fraction_fit": 0.6, "clip": "off"}}
    history = edgemeta.simulate(settings, out=tmp_path).history
    assert [record["participants"] for record in history[1:]] == [2, 2, 2]
    own = [np.zeros(0)] * 3
    for k in range(3):
        files = sorted((tmp_path / "participants" / f"{k:06d}").glob("private-*.safetensors"))
        own[k] = read_tensors(files[-1])[0]["own_variate"] if files else np.zeros(1)
    kept = read_tensors(tmp_path / "rounds" / "000003" / "server.safetensors")[0]["shared.variate"]
    np.testing.assert_allclose(kept, sum(own) / 3, rtol=1e-4, atol=1e-6)
    assert np.abs(kept).max() > 1e-3


def test_fedbabu_by_hand() -> None:
    # y = 2 (1 + 0) + 0 = 2, so dy = 4: the body (w, b) has gradient 4 * 2 = 8 in both, and the head stays.
    recipe = PhaseConfig(algorithm="fedbabu", batch_size=1, lr=0.0625, momentum=0.5)
    assert thetas(CHAIN, recipe, [1.0, 0.0, 2.0, 0.0], 1) == [[0.5, -0.5, 2.0, 0.0]]


def test_fedbabus_head_stays_whatever_shrinks_the_rest() -> None:
    # As above, but the body's gradient (8, 8) has half of it, (.5, 0), on top: (1, 0) - .0625 (8.5, 8).
    recipe = PhaseConfig(algorithm="fedbabu", batch_size=1, lr=0.0625, weight_decay=0.5)
    assert thetas(CHAIN, recipe, [1.0, 0.0, 2.0, 0.0], 1) == [[0.46875, -0.5, 2.0, 0.0]]


def apart(name: str, **told: Any) -> tuple[list[float], list[float]]:
    """Return the body's delta and the head after a round from (w, b) = (1, 0), (v, c) = (2, 0) at a rate of 1/16."""
    recipe = PhaseConfig(algorithm=name, batch_size=1, lr=0.0625, **told)
    shared, own = {"theta": np.array([1.0, 0.0])}, {"own_head": np.array([2.0, 0.0])}
    update = client_update(CHAIN, recipe, shared, own, same(4), np.random.default_rng)
    assert (list(update.shared), list(update.private)) == (["theta"], ["own_head"])
    return update.shared["theta"].tolist(), update.private["own_head"].tolist()


def test_fedper_by_hand() -> None:
    # y = 2 (1 + 0) + 0 = 2, so dy = 4: 4 v = 8 for w and b, 4 (w + b) = 4 for v, 4 for c.
    assert apart("fedper", local_steps=1) == ([-0.5, -0.5], [1.75, -0.25])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fedrep_by_hand(momentum: float) -> None:
    # The head first, by (4, 4) / 16 as above. There y = 1.75 - .25 = 1.5 and dy = 3: 3 * 1.75 / 16 for w and b. Nothing
    # of the head's step is left to move it on in the body's, nor does the body begin with it.
    assert apart("fedrep", local_steps=2, momentum=momentum) == ([-0.328125, -0.328125], [1.75, -0.25])


@pytest.mark.parametrize(("share", "steps", "heads"), [(0.5, 10, 5), (0.01, 3, 1), (1.0, 3, 2), (10 / 11, 11, 10)])
def test_a_round_of_fedrep_has_steps_of_both(share: float, steps: int, heads: int) -> None:
    recipe = PhaseConfig(algorithm="fedrep", local_steps=steps, settings={"head": share})
    parts = [LEARNERS["fedrep"].moves(CHAIN, recipe, step, steps) for step in range(steps)]
    assert parts == [slice(2, None)] * heads + [slice(0, 2)] * (steps - heads)


def test_anil_by_hand() -> None:
    # y = 2 and dy = 4 at theta: the head's gradient is 4 (w + b, 1) = (4, 4), so at .125 it becomes (1.5, -.5), and the
    # body stays. There y = 1.5 - .5 = 1 and dy = 2: 2 * 1.5 for the body, 2 (1, 1) for the head.
    theta = np.array([1.0, 0.0, 2.0, 0.0])
    found = direction("anil", CHAIN, {"theta": theta}, [ONE, ONE], inner_lr=0.125)
    assert found["theta"].tolist() == [3.0, 3.0, 2.0, 2.0]


def test_anil_adapts_the_head_alone_in_each_of_its_steps() -> None:
    model, theta, (support, query, _) = sinusoids()
    adapted, below = theta.copy(), head_start(model)
    for _ in range(3):
        adapted[below:] -= 0.01 * model.loss_and_grad(adapted, *support)[1][below:]
    expected = model.loss_and_grad(adapted, *query)[1]
    found = direction("anil", model, {"theta": theta}, [support, query], inner_lr=0.01, inner_steps=3)
    np.testing.assert_array_equal(found["theta"], expected)


@pytest.mark.parametrize("delta", [0.01, 1.0])
def test_perfedavg_is_exact_second_order_maml_where_the_loss_is_quadratic(delta: float) -> None:
    # The loss (w + b)² has the curvature H = 2 [[1, 1], [1, 1]] everywhere. From (1, 1) a step of .125 leads to
    # (.5, .5), where the gradient is g = (2, 2). H g = (8, 8), so (I - .125 H) g = (1, 1).
    found = direction(
        "perfedavg-hf", LINE, {"theta": np.array([1.0, 1.0])}, [ONE] * 3, inner_lr=0.125, settings={"delta": delta}
    )
    np.testing.assert_allclose(found["theta"], [1.0, 1.0], rtol=1e-12)


def test_perfedavg_is_second_order_maml_on_the_sinusoid_net() -> None:
    """With the same support set for step and curvature, the direction is the derivative of the adapted loss."""
    model, theta, (support, query, _) = sinusoids()

    def adapted_loss(at: Array) -> float:
        return model.loss_and_grad(at - 0.01 * model.loss_and_grad(at, *support)[1], *query)[0]

    exact = np.empty_like(theta)
    for i in range(theta.size):
        step = np.zeros_like(theta)
        step[i] = 1e-6
        exact[i] = (adapted_loss(theta + step) - adapted_loss(theta - step)) / 2e-6
    batches, told = [support, query, support], {"inner_lr": 0.01}
    found = direction("perfedavg-hf", model, {"theta": theta}, batches, settings={"delta": 1e-4}, **told)["theta"]
    first = direction("fomaml", model, {"theta": theta}, batches[:2], **told)["theta"]
    assert np.linalg.norm(found - exact) < 1e-3 * np.linalg.norm(exact)
    assert np.linalg.norm(first - exact) > 1e-1 * np.linalg.norm(exact)


def test_meta_sgd_by_hand() -> None:
    # At (1, 1) the support gradient is (4, 4). Rates of (1, 3) eighths lead to (.5, -.5), where the query gradient is
    # (0, 0): nothing is left to learn. Rates of (1, 1) lead to (.5, .5) and (2, 2): -4 * 2 for a rate, over an eighth.
    told = {"inner_lr": 0.125}
    for rates, theta, moved in (([1.0, 3.0], [0.0, 0.0], [0.0, 0.0]), ([1.0, 1.0], [2.0, 2.0], [-64.0, -64.0])):
        found = direction("meta-sgd", LINE, {"theta": np.ones(2), "rates": np.array(rates)}, [ONE] * 2, **told)
        assert {name: vector.tolist() for name, vector in found.items()} == {"theta": theta, "rates": moved}


def test_meta_sgds_rates_descend_along_the_exact_gradient_of_the_adapted_loss() -> None:
    """Of the sinusoid net: the loss after one step, by each parameter's rate; theta goes where FOMAML would."""
    model, theta, (support, query, _) = sinusoids()
    rates = np.random.default_rng(1).uniform(0.005, 0.02, theta.size)
    gradient = model.loss_and_grad(theta, *support)[1]

    def adapted_loss(at: Array) -> float:
        return model.loss_and_grad(theta - at * gradient, *query)[0]

    exact = np.empty_like(theta)
    for i in range(theta.size):
        step = np.zeros_like(theta)
        step[i] = 1e-6
        exact[i] = (adapted_loss(rates + step) - adapted_loss(rates - step)) / 2e-6
    vectors = {"theta": theta, "rates": rates / 0.01}  # in units of inner_lr
    found = direction("meta-sgd", model, vectors, [support, query], inner_lr=0.01)
    np.testing.assert_allclose(0.01 * found["rates"], exact, rtol=0, atol=1e-5 * np.abs(exact).max())
    np.testing.assert_allclose(found["theta"], model.loss_and_grad(theta - rates * gradient, *query)[1], rtol=1e-10)


def test_a_run_of_meta_sgd_adapts_at_the_rates_that_it_has_learned() -> None:
    rng, net = np.random.default_rng(0), Model([Dense(8), ReLU(), Dense(2)], (3,))
    x, y = rng.standard_normal((16, 3)).astype(np.float32), np.arange(16, dtype=np.int64) % 2
    phase = {"algorithm": "meta-sgd", "rounds": 3, "local_steps": 4, "batch_size": 16, "lr": 0.5, "inner_lr": 0.5}
    evaluation = {"every": 9, "adapt_steps": 1, "adapt_lr": 0.5, "support": 16}
    settings = {"phases": [phase], "evaluation": evaluation}
    run = edgemeta.simulate(settings, data=[((x, y), (x, y))], model=net)
    theta, rates = run.model.theta, run.beside[0]["rates"]
    gradient = net.loss_and_grad(theta, x, y)[1]
    loss, plain = (net.loss_and_grad(theta - 0.5 * by * gradient, x, y)[0] for by in (rates, 1))
    assert run.history[-1]["evaluation"]["after"]["loss"]["mean"] == pytest.approx(loss, rel=1e-5)
    assert abs(loss - plain) > 1e-4 * loss


def test_perfedavg_where_nothing_is_left_to_learn() -> None:
    found = direction("perfedavg-hf", LINE, {"theta": np.zeros(2)}, [ONE] * 3)
    assert found["theta"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            {"algorithm": "fedrep", "local_steps": 1},
            r"phases\.0, .*'fedrep': local_steps is 1, and a round has steps of",
        ),
        ({"algorithm": "meta-sgd", "inner_steps": 5}, "inner_steps is 5, and its rates learn from one step: give 1"),
        ({"algorithm": "meta-sgd", "weight_decay": 0.1}, "weight_decay is 0.1, which would shrink the learned rates"),
        ({"algorithm": "perfedavg-hf", "inner_steps": 2}, "inner_steps is 2, and its second-order term is that of one"),
        (
            {"algorithm": "scaffold", "momentum": 0.9},
            r"momentum is 0\.9, and a control variate is",
        ),
        ({"algorithm": "fedprox", "settings": {"mu": -1.0}}, r"settings\.mu is -1\.0: expected at least 0"),
    ],
)
def test_what_is_not_sound_is_refused_with_the_reason(phase: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edgemeta.simulate(TINY | {"phases": [phase]})


def test_a_mean_over_all_participants_needs_to_know_how_many_they_are() -> None:
    config = config_from({"data": {"participants": 0}, "phases": [{"algorithm": "scaffold"}]})
    with pytest.raises(ConfigError, match=r"keeps a mean over all participants, and data\.participants is 0"):
        resolve(config, (8, 8, 3), ("a", "b"))


@pytest.mark.parametrize("name", [name for name, row in LEARNERS.items() if row.apart])
def test_a_network_without_a_head_is_refused_by_learners_of_heads(name: str) -> None:
    network = Model([Flatten(), Dense(10), ReLU()], (8, 8, 3))
    with pytest.raises(ConfigError, match="has no dense layer last: this learner treats that layer in its own way"):
        edgemeta.simulate(TINY | {"phases": [{"algorithm": name}]}, model=network)
