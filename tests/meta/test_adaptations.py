"""The ways to adapt: each by hand or against the definition, what is refused, and where models and runs meet them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import TINY

import edgemeta
from edgemeta.config import EvaluationConfig, config_from
from edgemeta.errors import ConfigError, DataError, InputError
from edgemeta.meta import ADAPTATIONS, Own, Samples, TrainedModel, adapt_as, evaluate, load_model, score
from edgemeta.meta.adaptations import Steps, begun
from edgemeta.meta.evaluation import ABSENT_LOSS
from edgemeta.nn import Dense, Flatten, Model, ReLU, Vector, build, softmax
from edgemeta.nn.heads import give_head
from edgemeta.nn.prototypes import fitted_scale
from edgemeta.nn.ridge import ridge_head

EMBEDDING = Model([Dense(2)], (2,), loss="prototypes")
NAMED = Model([Dense(2), Dense(3)], (2,))
IDENTITY = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]  # of a dense layer of two: weights, biases
HEAD = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 0.25, 0.0]  # rows (1, 2, 3) and (4, 5, 6), and biases
THETA = np.array(IDENTITY + HEAD, np.float32)
# Two of class 2 with mean (1, 0), two of class 5 with mean (0, 3); what is nearer to the first is of it.
SUPPORT = Samples(
    np.array([[2, 0], [0, 0], [0, 4], [0, 2]], np.float32),
    np.array([2, 2, 5, 5], np.int64),
)


def adapted(name: str, model: Model, theta: Vector, support: Samples, steps: int = 0, batch: int = 32) -> Own:
    return ADAPTATIONS[name].adapt(model, theta, support, Steps(steps, 0.5, batch), np.random.default_rng(0))


def test_prototypes_by_hand() -> None:
    own = adapted("prototypes", EMBEDDING, np.array(IDENTITY, np.float32), SUPPORT)
    assert own.classes is not None
    assert own.classes.tolist() == [2, 5]
    views = own.model.layout.views(own.theta)
    scale = float(views["dense2.weight"][0, 0]) / 2
    # 2 s c_k and -s |c_k|², of the means (1, 0) and (0, 3).
    np.testing.assert_allclose(views["dense2.weight"], scale * np.array([[2, 0], [0, 6]]), rtol=1e-6)
    np.testing.assert_allclose(views["dense2.bias"], scale * np.array([-1, -9]), rtol=1e-6)
    x = np.array([[1, 1], [0, 1.5], [0, 1.2]], np.float32)  # squared distances 1 and 5; 3.25 and 2.25; 2.44 and 3.24
    logits = own.model.forward(own.theta, x)
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], scale * np.array([4, -1, 0.8]), rtol=1e-4)
    assert own.theta[:6].tolist() == IDENTITY


def test_ridge_by_hand() -> None:
    """One sample of each class tells nothing of how to hold the weights: a hundredth, and outputs times 8."""
    support = Samples(np.array([[3, 0], [1, 0]], np.float32), np.array([2, 5], np.int64))
    own = adapted("ridge", EMBEDDING, np.array(IDENTITY, np.float32), support)
    assert own.classes is not None
    assert own.classes.tolist() == [2, 5]
    # Around the mean (2, 0) features are +-1, whose squares sum to 2, and targets +-1/2: w = 1 / (2 + 0.01 * 2).
    views, w = own.model.layout.views(own.theta), 8 / 2.02
    np.testing.assert_allclose(views["dense2.weight"], [[w, -w], [0, 0]], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(views["dense2.bias"], [4 - 2 * w, 4 + 2 * w], rtol=1e-6)
    assert own.theta[:6].tolist() == IDENTITY


@pytest.mark.parametrize(("count", "width"), [(15, 4), (9, 30)])
def test_ridge_is_the_regression_that_does_best_on_samples_left_out(count: int, width: int) -> None:
    rng = np.random.default_rng(5)
    y = np.arange(count) % 3
    z = rng.standard_normal((count, width)) + (1.5 if count > width else 4.0) * np.eye(3, width)[y]

    def regression(z: Vector, y: Vector, held: float) -> tuple[Vector, Vector]:
        targets, inside = np.eye(3)[y], z - z.mean(axis=0)
        w = np.linalg.solve(inside.T @ inside + held * np.eye(width), inside.T @ (targets - targets.mean(axis=0)))
        return w, targets.mean(axis=0) - z.mean(axis=0) @ w

    def left_out(held: float) -> Vector:
        rows = []
        for i in range(count):
            rest = np.arange(count) != i
            w, b = regression(z[rest], y[rest], held)
            rows.append(z[i] @ w + b)
        return np.array(rows)

    unit = float(np.square(z - z.mean(axis=0)).sum())
    held = min((unit * 10.0**k for k in range(-4, 1)), key=lambda held: np.square(left_out(held) - np.eye(3)[y]).sum())
    scale = max(
        (2.0**k for k in range(7)), key=lambda s: np.log(softmax(s * left_out(held))[np.arange(count), y]).sum()
    )
    w, b = regression(z, y, held)
    weight, bias = ridge_head(z, y, 3)
    np.testing.assert_allclose(weight, scale * w, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(bias, scale * b, rtol=1e-9)
    assert unit * 1e-4 < held < unit  # the choice is not at an end
    assert 1 < scale < 64


@pytest.mark.parametrize("z", [np.ones((3, 2), np.float32), np.array([[1, 2], [1, 2], [3, 4]], np.float32)])
def test_ridge_of_one_class_or_of_features_that_are_all_alike(z: Vector) -> None:
    for y in (np.zeros(3, np.int64), np.array([0, 0, 1])):
        weight, bias = ridge_head(z, y, int(y.max()) + 1)
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
    weight, bias = ridge_head(z[:1], np.zeros(1, np.int64), 1)
    assert (weight.tolist(), np.isfinite(bias).all()) == ([[0], [0]], True)
    assert np.isnan(ridge_head(np.full((3, 2), np.inf, np.float32), np.zeros(3, np.int64), 1)[0]).all()


def test_a_scale_is_the_likeliest_of_those_that_are_tried() -> None:
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1, 2], 6)
    z = (rng.standard_normal((18, 4)) + 2 * np.eye(4)[y]).astype(np.float64)

    def likely(scale: float) -> float:
        total = 0.0
        for i in range(18):
            rest = np.arange(18) != i
            squares = np.array([((z[i] - z[rest & (y == k)].mean(axis=0)) ** 2).sum() for k in range(3)])
            total += float(np.log(softmax(-scale * squares[np.newaxis])[0, y[i]]))
        return total

    scale = fitted_scale(z, y)
    assert likely(scale) > max(likely(scale / 2), likely(scale * 2))
    assert fitted_scale(1000 * z, y) == pytest.approx(scale / 1e6, rel=1e-9)  # whatever the units
    assert fitted_scale(z[:3], np.array([0, 1, 2])) > 0  # one sample each: nothing is left to be judged by
    assert fitted_scale(z[:3] * 0, np.zeros(3, np.int64)) > 0


def test_known_leaves_out_the_classes_that_are_not_there() -> None:
    support = Samples(SUPPORT.x, np.array([2, 2, 0, 0], np.int64))
    own = adapted("known", NAMED, THETA, support)
    assert own.theta.tolist() == [*IDENTITY, 1, 3, 4, 6, 0.5, 0]  # columns 0 and 2
    x = np.array([[1, 0], [0, 1]], np.float32)
    assert own.model.forward(own.theta, x).tolist() == NAMED.forward(THETA, x)[:, [0, 2]].tolist()
    assert own.classes is not None
    assert own.classes.tolist() == [0, 2]


def test_head_is_softmax_regression_on_the_features() -> None:
    model = Model([Dense(3), ReLU(), Dense(2)], (2,))
    theta = model.init(1)
    x = np.random.default_rng(2).standard_normal((10, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    own = adapted("head", model, theta, Samples(x, y), steps=3)
    w = {name: view.astype(np.float64) for name, view in model.layout.views(theta).items()}
    z = np.maximum(x @ w["dense1.weight"] + w["dense1.bias"], 0)
    for _ in range(3):
        slope = (softmax(z @ w["dense2.weight"] + w["dense2.bias"]) - np.eye(2)[y]) / 10
        w["dense2.weight"] -= 0.5 * z.T @ slope
        w["dense2.bias"] -= 0.5 * slope.sum(axis=0)
    assert own.model is model
    for name, view in model.layout.views(own.theta).items():
        np.testing.assert_allclose(view, w[name], rtol=1e-5, atol=1e-6)
    assert adapted("sgd", model, theta, Samples(x, y), steps=3).theta[0] != theta[0]  # while SGD moves what is below


@pytest.mark.parametrize("name", ["sgd", "head"])
def test_an_embedding_gets_a_head_of_zeros_for_steps_to_move(name: str) -> None:
    theta = np.array(IDENTITY, np.float32)
    none, one = (adapted(name, EMBEDDING, theta, SUPPORT, steps) for steps in (0, 1))
    assert none.theta.tolist() == IDENTITY + [0.0] * 6
    # Both classes have a chance of a half: the slope of the bias is 0, that of the weights z'(p - onehot) / 4, so that
    # half of it is taken off: by class, z sums to (2, 0) and (0, 6).
    weight = one.model.layout.views(one.theta)["dense2.weight"]
    np.testing.assert_allclose(weight, [[0.125, -0.125], [-0.375, 0.375]])


def test_prototypes_then_steps_is_sgd_from_the_head_that_they_make() -> None:
    x = np.random.default_rng(1).standard_normal((8, 2)).astype(np.float32)
    support, places = (Samples(x, np.repeat(np.array(pair, np.int64), 4)) for pair in ([3, 7], [0, 1]))
    none, two = (adapted("prototypes", EMBEDDING, np.array(IDENTITY, np.float32), support, steps) for steps in (0, 2))
    theta = none.theta
    for _ in range(2):
        theta = theta - np.float32(0.5) * none.model.loss_and_grad(theta, *places)[1]
    np.testing.assert_allclose(two.theta, theta, rtol=1e-5, atol=1e-6)
    assert not np.allclose(two.theta, none.theta)


def test_a_class_that_a_model_does_not_have_counts_as_wrong() -> None:
    own = adapted("prototypes", EMBEDDING, np.array(IDENTITY, np.float32), SUPPORT)
    test = Samples(np.array([[2, 0], [0, 4], [0, 4], [2, 0]], np.float32), np.array([2, 5, 3, 9], np.int64))
    both, two = (score(own.model, own.theta, part, own.classes) for part in (test, test.take([0, 1])))
    assert (both["accuracy"], two["accuracy"]) == (0.5, 1.0)
    assert both["loss"] == pytest.approx((2 * two["loss"] + 2 * ABSENT_LOSS) / 4, rel=1e-6)
    assert pytest.approx(126 * np.log(2), rel=1e-6) == ABSENT_LOSS  # float32's smallest normal number is 2^-126


def test_evaluation_of_an_embedding_has_no_before() -> None:
    scores = evaluate(
        *(EMBEDDING, np.array(IDENTITY, np.float32), SUPPORT, SUPPORT.take([0, 2, 3])),
        *(EvaluationConfig(grid=((0, 2), (3, 4))), 32, np.random.default_rng(0)),
    )
    assert scores["before"] is None
    assert scores["classes"] == 2
    assert scores["after"]["accuracy"] == 1.0
    assert [cell["steps"] for cell in scores["grid"]] == [0, 3]


def test_steps_take_the_rates_that_were_learned() -> None:
    # The loss is (w + b)². From (1, 1) the gradient is (4, 4): at rates of (1, 3) eighths it leads to (.5, -.5), where
    # it is zero. Two steps at an eighth lead to (.25, .25).
    line, one = Model([Dense(1)], (1,), "mse"), Samples(np.array([[1.0]]), np.array([[0.0]]))
    settings, rng = EvaluationConfig(adaptation="sgd", adapt_steps=2, adapt_lr=0.125), np.random.default_rng(0)
    for rates, reached in ((np.array([1.0, 3.0]), [0.5, -0.5]), (None, [0.25, 0.25])):
        network, theta, found = begun(settings, line, np.ones(2), {} if rates is None else {"rates": rates}, 0)
        assert adapt_as(settings, network, theta, one, 32, rng, rates=found).theta.tolist() == reached


def test_rates_are_of_the_outputs_that_a_participant_has() -> None:
    """And no others than steps on all parameters take them: a head that prototypes make was never trained."""
    embedding = Model([Flatten(), Dense(2)], (2,), "prototypes")
    give_head(embedding, 3)
    theta, beside = np.zeros(6, np.float32), {"head": np.zeros(9, np.float32), "rates": np.arange(15.0)}
    settings = EvaluationConfig(adaptation="sgd")
    network, whole, rates = begun(settings, embedding, theta, beside, 2)
    assert (network.outputs, whole.size) == (2, 12)
    assert rates is not None
    assert rates.tolist() == [*range(6), 6, 7, 9, 10, 12, 13]  # of two rows of three weights the first two columns
    for adaptation in ("head", "prototypes", "ridge"):
        assert begun(replace(settings, adaptation=adaptation), embedding, theta, beside, 2)[2] is None


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"adaptation": "prototype"}, "mlp", "unknown adaptation 'prototype': did you mean 'prototypes'"),
        ({"adaptation": "known", "adapt_steps": 2}, "mlp", "'known' takes no steps: give 0, or take 'head' or 'sgd'"),
        ({"adaptation": "known", "grid": [[1, 20]]}, "mlp", "'known' takes no steps"),
    ],
)
def test_what_means_nothing_is_refused_before_a_run(settings: dict[str, object], model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edgemeta.simulate(TINY | {"model": {"name": model}, "evaluation": settings})


def test_adaptations_that_a_network_cannot_have_are_refused() -> None:
    theta, rng = np.zeros(6, np.float32), np.random.default_rng(0)
    with pytest.raises(ConfigError, match="an embedding has none"):
        adapt_as(EvaluationConfig(adaptation="known"), EMBEDDING, theta, SUPPORT, 32, rng)
    line = Model([Dense(1)], (2,), "mse")
    with pytest.raises(ConfigError, match="this model has targets: take 'sgd'"):
        adapt_as(EvaluationConfig(adaptation="prototypes"), line, line.init(0), SUPPORT, 32, rng)
    flat = Model([Flatten(), Dense(2), ReLU()], (2,))
    with pytest.raises(InputError, match="no dense layer last"):
        adapt_as(EvaluationConfig(adaptation="known"), flat, flat.init(0), SUPPORT, 32, rng)


def test_a_trained_model_becomes_an_ordinary_one_of_the_known_classes(tmp_path: Path) -> None:
    model = TrainedModel(build("mlp", (2,), 3), build("mlp", (2,), 3).init(0), ("cup", "door", "key"), 7)
    for adaptation in ("known", "prototypes"):
        own = model.adapt(SUPPORT.x, ["key", "key", "cup", "cup"], adaptation=adaptation)
        assert (own.classes, own.round) == (("cup", "key"), 7)
        own.save(tmp_path / "own.safetensors")
        assert load_model(tmp_path / "own.safetensors").predict(SUPPORT.x).tobytes() == own.predict(SUPPORT.x).tobytes()
    assert [own.classes[i] for i in own.predict(SUPPORT.x).argmax(axis=1)] == ["key", "key", "cup", "cup"]
    with pytest.raises(InputError, match="steps is 2: adaptation 'known' takes none"):
        model.adapt(SUPPORT.x, ["key"] * 4, 2, adaptation="known")


def test_a_model_without_classes_takes_those_of_the_labels(tmp_path: Path) -> None:
    model = TrainedModel(EMBEDDING, np.array(IDENTITY, np.float32), ())
    model.save(tmp_path / "embedding.safetensors")
    model = load_model(tmp_path / "embedding.safetensors")
    assert (model.classes, model.network.embeds) == ((), True)
    with pytest.raises(DataError, match="no classes of its own: adapt it first"):
        model.predict(SUPPORT.x)
    own = model.adapt(SUPPORT.x, ["mine", "mine", "a door", "a door"])
    assert own.classes == ("a door", "mine")
    assert own.predict(SUPPORT.x).argmax(axis=1).tolist() == [1, 1, 0, 0]
    own.save(tmp_path / "own.safetensors")
    assert load_model(tmp_path / "own.safetensors").classes == ("a door", "mine")
    with pytest.raises(InputError, match="2 class names for an embedding: expected none"):
        TrainedModel(EMBEDDING, model.theta, ("a", "b")).save(tmp_path / "wrong")


@pytest.mark.slow
def test_a_run_scores_with_its_adaptation() -> None:
    plain = TINY | {"evaluation": {"every": 2, "support": 20}}
    by = {name: TINY | {"evaluation": {"every": 2, "support": 20, "adaptation": name}} for name in ADAPTATIONS}
    last = {name: edgemeta.simulate(config).history[-1] for name, config in by.items()}
    before = {name: record["evaluation"]["before"] for name, record in last.items()}
    assert all(scores == before["sgd"] for scores in before.values())  # adaptation changes nothing of the training
    after = [record["evaluation"]["after"]["loss"]["mean"] for record in last.values()]
    assert len(set(after)) == len(ADAPTATIONS)
    usual = edgemeta.simulate(plain)
    assert usual.history[-1]["evaluation"] == last["sgd"]["evaluation"]
    assert config_from(plain).evaluation.adapt_steps is None
