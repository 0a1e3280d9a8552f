"""A loss of one's own: a function and a row, and everything else follows from what the row says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array
from runs import TINY

import edgemeta
from edgemeta.config import config_from
from edgemeta.errors import ConfigError, InputError
from edgemeta.fed.plan import resolve
from edgemeta.meta import Samples, TrainedModel, load_model, score
from edgemeta.nn import Dense, Flatten, Model, build, softmax
from edgemeta.nn.losses import LOSSES, Loss, cross_entropy


def twice(outputs: Array, labels: Array) -> tuple[float, Array]:
    loss, doutputs = cross_entropy(outputs, labels)
    return 2 * loss, 2 * doutputs


def absolute(outputs: Array, targets: Array) -> tuple[float, Array]:
    difference = outputs - targets.reshape(outputs.shape)
    return float(np.abs(difference).mean()), np.sign(difference) / np.array(difference.size, outputs.dtype)


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "twice", Loss(twice, classifies=True))
    monkeypatch.setitem(LOSSES, "absolute", Loss(absolute, classifies=False))


def test_a_classifiers_loss(tmp_path: Path) -> None:
    classes, theta = ("no", "yes"), np.array([1.0, -1.0, 0.0, 0.0], np.float32)
    model = Model([Dense(2)], (1,), loss="twice")  # logits (x, -x): yes for x < 0
    with pytest.raises(InputError, match="1 class names for 2 outputs"):
        TrainedModel(model, theta, ("no",)).save(tmp_path / "model")
    TrainedModel(model, theta, classes).save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.network.loss == "twice"
    x = np.array([[0.0], [2.0], [-3.0]], np.float32)
    assert loaded.predict(x).tolist() == softmax(np.array([[0, 0], [2, -2], [-3, 3]], np.float32)).tolist()
    plain = TrainedModel(Model([Dense(2)], (1,)), theta, classes)
    labels = ["yes", "yes", "no"]
    assert loaded.adapt(x, labels, lr=0.25).theta.tobytes() == plain.adapt(x, labels, lr=0.5).theta.tobytes()
    test = Samples(x, np.array([0, 1, 1]))
    ours, theirs = (score(m.network, theta, test) for m in (loaded, plain))
    assert ours == {"loss": 2 * theirs["loss"], "accuracy": 2 / 3}


def test_a_loss_that_takes_targets(tmp_path: Path) -> None:
    model = Model([Flatten(), Dense(1)], (1,), loss="absolute")
    TrainedModel(model, np.array([1.0, 1.0], np.float32), ()).save(tmp_path / "model")  # y = x + 1
    line = load_model(tmp_path / "model")
    assert line.predict(np.array([[1.0], [3.0]])).tolist() == [[2.0], [4.0]]
    assert score(line.network, line.theta, Samples(np.array([[1.0], [3.0]]), np.array([2.0, 7.0]))) == {"loss": 1.5}
    # At x = 2 the output 3 is above the target 0: the gradient is (2, 1).
    assert line.adapt(np.array([[2.0]]), np.array([0.0]), steps=1, lr=0.25).theta.tolist() == [0.5, 0.75]


def test_a_run_is_trained_with_the_loss_that_its_configuration_names(tmp_path: Path) -> None:
    """Twice the loss at half the rate is the same step, to the bit."""
    run: dict[str, Any] = {"algorithm": "fedavg", "rounds": 2, "local_steps": 2, "batch_size": 4}
    settings = TINY | {"evaluation": {"every": 2, "adapt_steps": 0}}
    plain = edgemeta.simulate(settings | {"phases": [run | {"lr": 0.5}]})
    other = settings | {"model": {"name": "mlp", "loss": "twice"}, "phases": [run | {"lr": 0.25}]}
    doubled = edgemeta.simulate(other, out=tmp_path / "run")
    assert doubled.model.theta.tobytes() == plain.model.theta.tobytes()
    assert doubled.model.network.loss == "twice"
    assert edgemeta.simulate(str(tmp_path / "run" / "run.toml")).model.theta.tobytes() == plain.model.theta.tobytes()
    accuracy, loss = (doubled.summary["evaluation"]["after"][name]["mean"] for name in ("accuracy", "loss"))
    assert (accuracy, loss) == (
        plain.summary["evaluation"]["after"]["accuracy"]["mean"],
        2 * plain.summary["evaluation"]["after"]["loss"]["mean"],
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("twcie", "unknown loss 'twcie': did you mean 'twice'"),
        ("mse", "model.loss is 'mse', which takes targets, and a run's data has classes: give cross-entropy, twice"),
    ],
)
def test_a_loss_that_a_run_cannot_have_is_refused(loss: str, message: str) -> None:
    for network in (None, *([build("mlp", (8, 8, 3), 2, loss=loss)] if loss in LOSSES else [])):
        with pytest.raises(ConfigError, match=message):
            resolve(config_from(TINY | {"model": {"name": "mlp", "loss": loss}}), (8, 8, 3), ("a", "b"), network)
