"""A model in use, given what people give."""

import numpy as np
import pytest

import edgemeta
from edgemeta.errors import DataError, DivergedError, InputError, ModelFileError
from edgemeta.meta import TrainedModel, load_model
from edgemeta.nn import PICTURES, Dense, Flatten, Model, ReLU

NET = Model([Flatten(), Dense(8), ReLU(), Dense(2)], (4, 4, 3), normalization=PICTURES)
TRAINED = TrainedModel(NET, NET.init(0), ("cat", "dog"), 3)
X = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
Y = np.arange(20) % 2
LINE = TrainedModel(Model([Dense(1)], (1,), "mse"), np.array([1.0, 1.0], np.float32), ())
SENSOR = Model([Dense(2)], (3,))


@pytest.mark.parametrize("given", [X.astype(np.int64), X.astype(np.uint16), X.astype(object), X.tolist(), list(X)])
def test_pictures_of_any_type_mean_the_same(given):
    assert TRAINED.predict(given).tobytes() == TRAINED.predict(X).tobytes()
    assert TRAINED.adapt(given, Y).theta.tobytes() == TRAINED.adapt(X, Y).theta.tobytes()


@pytest.mark.parametrize(
    "given",
    [X.astype(np.float32), X / 127.5 - 1, X.astype(np.int32) - 1, X.astype(str), "a.png", [X[0], X[1, :2]], None, 3],
    ids=["floats-of-bytes", "around-0", "below-0", "text", "path", "two-sizes", "none", "number"],
)
def test_what_is_no_picture_is_neither_predicted_nor_learned(given):
    for attempt in (lambda: TRAINED.predict(given), lambda: TRAINED.adapt(given, Y)):
        with pytest.raises(DataError, match=r"^images: "):
            attempt()


def test_a_sensors_whole_numbers_are_numbers():
    model = TrainedModel(SENSOR, SENSOR.init(0), ("still", "shaking"))
    readings = np.array([[-4, 0, 300], [1, 2, 3]])
    assert model.predict(readings).tobytes() == model.predict(readings.astype(np.float64)).tobytes()
    small = np.array([[1, 2, 200]], np.uint8)
    assert model.predict(small).tobytes() == model.predict(small.astype(np.float32)).tobytes()


@pytest.mark.parametrize(
    "labels",
    [Y[:, np.newaxis], np.eye(2)[Y], np.eye(2, dtype=bool)[Y].tolist(), Y.astype(float), np.array(["cat", "dog"])[Y]],
)
def test_labels_in_any_form(labels):
    assert TRAINED.adapt(X, labels).theta.tobytes() == TRAINED.adapt(X, Y).theta.tobytes()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", None] * 10, "label 1 is None"),
        (["cat", "zebra"] * 10, "does not know zebra: its classes are cat, dog"),
        (np.where(Y == 0, np.nan, 1), "label 0 is nan"),
        (np.eye(3)[Y], "3 columns: expected 2"),
        (2_000_000 * Y, "does not know 2000000"),
        (None, "labels: None"),
        ("cat", "labels: 'cat'"),
    ],
)
def test_labels_that_are_none(labels, said):
    with pytest.raises(DataError, match=said):
        TRAINED.adapt(X, labels)


def test_whole_numbers_are_no_labels_of_a_model_whose_classes_are_other_numbers():
    model = TrainedModel(NET, NET.init(0), ("3", "7"))
    with pytest.raises(DataError, match="names or positions of 3, 7: give names, as text"):
        model.adapt(X, Y)
    expected = TRAINED.adapt(X, Y).theta.tobytes()
    assert model.adapt(X, np.array(["3", "7"])[Y]).theta.tobytes() == expected


def test_one_class_alone_and_one_sample_alone_are_enough():
    alone = TRAINED.adapt(X, ["dog"] * 20, steps=20)
    assert alone.predict(X)[:, 1].mean() > TRAINED.predict(X)[:, 1].mean()
    assert TRAINED.adapt(X[0], ["dog"]).theta.tobytes() == TRAINED.adapt(X[:1], ["dog"]).theta.tobytes()


@pytest.mark.parametrize("lr", [1e3, 1e30, 9e37])
def test_a_model_that_is_not_finite_is_not_returned(lr):
    with pytest.raises(DivergedError, match=r"diverged after 5 steps: lower lr"):
        TRAINED.adapt(X, Y, lr=lr)
    with pytest.raises(DivergedError, match="lower lr"):
        LINE.adapt([[1.0]], [0.0], lr=1e30)


def test_a_large_error_that_is_finite_is_regressions_own_business():
    far = LINE.adapt([[0.0]], [1e5], steps=1, lr=0.125)  # the error is 1e10, its gradient in b 2 (1 - 1e5)
    assert far.theta.tolist() == pytest.approx([1.0, 1 + 0.25 * (1e5 - 1)])


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("steps", [-1, True, 2.0, "3", np.float64(1)]),
        ("batch_size", [0, -3, True, 1.5, None]),
        ("lr", [0, -0.1, float("nan"), float("inf"), True, "0.1", None, 10**400, 1e39]),
        ("seed", [-1, "x", 0.5]),
    ],
)
def test_settings_that_are_no_steps_of_sgd(setting, values):
    for value in values:
        with pytest.raises(InputError, match=rf"^{setting} is .*: expected a "):
            TRAINED.adapt(X, Y, **{setting: value})


def test_settings_may_be_numpys():
    how = {"steps": np.int64(2), "lr": np.float32(0.5), "batch_size": np.uint8(4)}
    assert TRAINED.adapt(X, Y, **how).theta.tobytes() == TRAINED.adapt(X, Y, 2, lr=0.5, batch_size=4).theta.tobytes()
    assert TRAINED.adapt(X, Y, 0).theta.tobytes() == TRAINED.theta.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_what_nothing_could_load_is_not_written(tmp_path, value):
    theta = TRAINED.theta.astype(np.float64)
    theta[5] = value  # as float32, the last is infinite, too
    TRAINED.save(tmp_path / "model")
    kept = (tmp_path / "model").read_bytes()
    with pytest.raises(DivergedError, match="not all finite"):
        TrainedModel(NET, theta, ("cat", "dog")).save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_models_file_is_named_by_its_path(tmp_path):
    for path in (None, 3, ["model"], b"model", TRAINED):
        with pytest.raises(ModelFileError, match="named by its path"):
            load_model(path)
    for path in (tmp_path, str(tmp_path / "none"), "", "a\0b"):
        with pytest.raises(ModelFileError, match="cannot"):
            edgemeta.load_model(path)
