"""Adaptation, scores without a leak, and models in use."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array

import edgemeta
from edgemeta.config import EvaluationConfig
from edgemeta.errors import DataError, InputError
from edgemeta.meta import LOSS_CEILING, Samples, TrainedModel, adapt, evaluate, evaluation, load_model, score
from edgemeta.nn import PICTURES, Conv2d, Dense, Flatten, MaxPool2d, Model, ReLU, Vector, softmax

pytestmark = pytest.mark.board

LINE = Model([Dense(1)], (1,), "mse")  # at x = 1, y = 0 the loss is (w + b)^2, its gradient 2 (w + b) in both
NET = Model([Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Dense(3)], (6, 6, 1), normalization=PICTURES)
SETTINGS = EvaluationConfig(adapt_steps=4, adapt_lr=0.1, support=20, grid=((0, 5), (2, 8), (9, 200)))


def draw(count: int, seed: int) -> Samples:
    """Pictures whose class is told by their brightness."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count, np.int64)
    return Samples((rng.integers(0, 90, (count, 6, 6, 1)) + 80 * y[:, None, None, None]).astype(np.uint8), y)


def test_adapt_by_hand() -> None:
    support = Samples(np.array([[1.0]]), np.array([[0.0]]))
    theta = np.array([1.0, 1.0])
    rng = np.random.default_rng(0)
    adapted = [adapt(LINE, theta, support, steps=k, lr=0.125, batch_size=1, rng=rng).tolist() for k in (0, 1, 2)]
    assert adapted == [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]
    assert theta.tolist() == [1.0, 1.0]


def test_a_step_takes_the_whole_support_set_when_it_fits() -> None:
    theta, support = NET.init(0), draw(12, 0)
    expected = theta
    for _ in range(3):
        expected = expected - 0.1 * NET.loss_and_grad(expected, support.x, support.y)[1]
    for seed in (1, 2):  # nothing is drawn
        got = adapt(NET, theta, support, steps=3, lr=0.1, batch_size=12, rng=np.random.default_rng(seed))
        assert got.tobytes() == expected.tobytes()


def test_else_a_step_takes_a_batch_without_repetition() -> None:
    seen: list[list[int]] = []

    class Recording(Model):
        def _backpropagate(self, theta: Vector, x: Any, *rest: Any) -> float:
            seen.append(x[:, 0].tolist())
            return super()._backpropagate(theta, x, *rest)

    model = Recording([Dense(1)], (1,), "mse")
    support = Samples(np.arange(10, dtype=np.float32)[:, np.newaxis], np.zeros(10, np.float32))
    for _ in range(2):
        adapt(model, model.init(0), support, steps=3, lr=0.001, batch_size=4, rng=np.random.default_rng(7))
    assert [len(set(batch)) for batch in seen] == [4] * 6
    assert seen[:3] == seen[3:]  # the generator decides
    assert seen[0] != seen[1]


def test_score_by_hand() -> None:
    model = Model([Dense(2)], (1,))
    theta = np.array([1.0, -1.0, 0.0, 0.0])  # logits (x, -x): class 0 for x > 0
    x = np.array([[math.log(3) / 2], [-math.log(3) / 2], [math.log(3) / 2], [5.0]])  # p of the larger: 3/4, ..., near 1
    scores = score(model, theta, Samples(x, np.array([0, 1, 1, 0], np.int64)))
    assert scores["accuracy"] == 0.75
    expected = (math.log(4 / 3) + math.log(4 / 3) + math.log(4) + math.log1p(math.exp(-10))) / 4
    assert scores["loss"] == pytest.approx(expected, rel=1e-12)


def test_a_score_over_several_batches_is_the_mean_over_samples() -> None:
    theta, test = NET.init(0), draw(300, 0)  # 128 + 128 + 44
    outputs = NET.forward(theta, test.x).astype(np.float64)
    log_p = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    scores = score(NET, theta, test)
    assert scores["accuracy"] == np.mean(outputs.argmax(axis=1) == test.y)
    assert scores["loss"] == pytest.approx(-log_p[np.arange(300), test.y].mean(), rel=1e-5)


def test_regression_has_a_loss_and_no_accuracy() -> None:
    test = Samples(np.array([[1.0], [2.0]]), np.array([0.0, 1.0]))
    assert score(LINE, np.array([1.0, 1.0]), test) == {"loss": 4.0}  # (2^2 + 2^2) / 2


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no test samples"):
        score(NET, NET.init(0), draw(0, 0))
    for label in (-1, 3):  # -1 would silently be the last class
        with pytest.raises(InputError, match="0 to 2"):
            score(NET, NET.init(0), Samples(draw(2, 0).x, np.array([0, label], np.int64)))


def test_evaluation_before_and_after_adaptation() -> None:
    theta, train, test = NET.init(0), draw(60, 1), draw(50, 2)
    got = evaluate(NET, theta, train, test, SETTINGS, 16, np.random.default_rng(0))
    assert got["samples"] == 50
    assert got["before"] == score(NET, theta, test)
    assert got["grid"][0] == {"steps": 0, "support": 5, **got["before"]}
    assert [(row["steps"], row["support"]) for row in got["grid"]] == list(SETTINGS.grid)
    assert got["after"]["loss"] < got["before"]["loss"]
    order = np.random.default_rng(0).permutation(60)
    personal = adapt(NET, theta, train.take(order[:8]), steps=2, lr=0.1, batch_size=16, rng=np.random.default_rng(9))
    assert got["grid"][1] == {"steps": 2, "support": 8, **score(NET, personal, test)}
    assert got == evaluate(NET, theta, train, test, SETTINGS, 16, np.random.default_rng(0))


class Traced(Model):
    """A model that notes the parameters it was adapted to and scored at, and on what."""

    def __init__(self) -> None:
        super().__init__(NET.layers, NET.input_shape, normalization=PICTURES)
        self.trained_on: list[Array] = []
        self.scored: list[tuple[bytes, Array]] = []

    def _backpropagate(self, theta: Vector, x: Any, *rest: Any) -> float:
        self.trained_on.append(x)
        return super()._backpropagate(theta, x, *rest)

    def forward(self, theta: Vector, x: Any, *rest: Any) -> Array:
        self.scored.append((theta.tobytes(), x))
        return super().forward(theta, x, *rest)


def test_no_leak_test_data_decide_nothing_about_the_adapted_parameters() -> None:
    theta, train, test = NET.init(0), draw(60, 1), draw(30, 2)  # scored in one go
    poisoned = Samples(255 - test.x, (test.y + 1) % 3)
    runs = []
    for scored in (test, poisoned):
        model = Traced()
        evaluate(model, theta, train, scored, SETTINGS, 16, np.random.default_rng(0))
        runs.append([bits for bits, _ in model.scored])
        own = {sample.tobytes() for sample in train.x}
        assert all(sample.tobytes() in own for x in model.trained_on for sample in x)
        assert all(x.tobytes() == scored.x.tobytes() for _, x in model.scored)
    assert runs[0] == runs[1]  # to the bit: before, after, and the grid
    assert len(runs[0]) == 5
    assert len(set(runs[0])) == 4  # no steps leave the parameters as they are


def test_no_leak_test_data_are_not_even_read_while_adapting(monkeypatch: pytest.MonkeyPatch) -> None:
    adapting = False

    class Guarded(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            assert not adapting, "test data were read while adapting"
            return np.asarray(self)[key]

        def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("test data were computed with outside of scoring")

    def watched(*arguments: Any, **named: Any) -> Vector:
        nonlocal adapting
        adapting = True
        try:
            return adapt(*arguments, **named)
        finally:
            adapting = False

    monkeypatch.setattr(evaluation, "adapt", watched)
    test = draw(40, 2)
    guarded = Samples(test.x.view(Guarded), test.y.view(Guarded))
    got = evaluate(NET, NET.init(0), draw(60, 1), guarded, SETTINGS, 16, np.random.default_rng(0))
    assert got == evaluate(NET, NET.init(0), draw(60, 1), test, SETTINGS, 16, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="while adapting"):  # the guard guards
        watched(NET, NET.init(0), guarded, steps=1, lr=0.1, batch_size=16, rng=np.random.default_rng(0))


def test_a_diverging_adaptation_shows_in_its_scores() -> None:
    settings = EvaluationConfig(adapt_steps=50, adapt_lr=1e30)
    got = evaluate(NET, NET.init(0), draw(60, 1), draw(40, 2), settings, 16, np.random.default_rng(0))  # no warning
    assert math.isfinite(got["before"]["loss"])
    assert got["after"]["loss"] == LOSS_CEILING


CLASSES = ("dark", "grey", "light")


@pytest.fixture
def trained() -> TrainedModel:
    return TrainedModel(NET, NET.init(4), CLASSES, 3)


def test_save_and_load(trained: TrainedModel, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.safetensors")
    loaded = edgemeta.load_model(str(tmp_path / "model.safetensors"))
    assert (loaded.classes, loaded.round) == (CLASSES, 3)
    assert loaded.theta.tobytes() == trained.theta.tobytes()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    x = draw(5, 0).x
    assert load_model(tmp_path / "again").predict(x).tobytes() == trained.predict(x).tobytes()


def test_predict_gives_probabilities(trained: TrainedModel) -> None:
    x = draw(200, 0).x
    p = trained.predict(x)
    assert (p.shape, p.dtype) == ((200, 3), np.float32)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(p, softmax(NET.forward(trained.theta, x)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.predict(x / 255), p, rtol=1e-3, atol=1e-5)  # uint8, or float in [0, 1]
    np.testing.assert_allclose(trained.predict(x[7]), p[7:8], rtol=1e-4, atol=1e-6)  # one image is a batch of one
    assert trained.predict(x[:0]).shape == (0, 3)
    for wrong in (x[:, :5], x[0, 0], np.zeros((2, 6, 6, 3))):
        with pytest.raises(InputError, match=r"this network takes \(6, 6, 1\)"):
            trained.predict(wrong)


def test_adapt_returns_another_model_that_is_better(trained: TrainedModel) -> None:
    support, test, before = draw(30, 1), draw(60, 2), trained.theta.tobytes()
    by_index = trained.adapt(support.x, support.y, steps=20)
    by_name = trained.adapt(support.x, [CLASSES[label] for label in support.y], steps=20)
    assert by_index.theta.tobytes() == by_name.theta.tobytes()
    assert (by_index.classes, by_index.round, trained.theta.tobytes()) == (CLASSES, 3, before)
    scores = [score(NET, model.theta, test)["loss"] for model in (trained, by_index)]
    assert scores[1] < 0.9 * scores[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["dark", "bright"], "does not know bright: its classes are dark, grey, light"),
        ([0, 3], "does not know 3"),
        ([0, -1], "does not know -1"),
        ([0], "2 images with 1 labels"),
        ([0, 1, 2], "2 images with 3 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(trained: TrainedModel, labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        trained.adapt(draw(2, 0).x, labels, batch_size=1)


def test_a_regression_model_predicts_its_outputs_and_adapts_to_targets(tmp_path: Path) -> None:
    TrainedModel(LINE, np.array([1.0, 1.0], np.float32), ()).save(tmp_path / "line")
    line = load_model(tmp_path / "line")
    assert line.predict(np.array([[1.0], [3.0]])).tolist() == [[2.0], [4.0]]
    assert line.adapt(np.array([[1.0]]), np.array([0.0]), steps=2, lr=0.125).theta.tolist() == [0.25, 0.25]
