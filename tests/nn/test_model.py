"""Whole networks over one flat vector."""

import gc
import math
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradients import Array, check_gradient
from test_conv import naive

from edgemeta.errors import InputError
from edgemeta.nn import PICTURES, Conv2d, Dense, Flatten, MaxPool2d, Model, Normalization, ReLU, Workspace, build
from edgemeta.nn.model import layers_from

pytestmark = pytest.mark.board

NETWORKS = {
    "cnn": build("cnn", (8, 9, 3), 5),
    "cnn-small": build("cnn-small", (7, 10, 1), 3),
    "conv4": build("conv4", (16, 17, 2), 3),
    "mlp": build("mlp", (4, 3), 4),
    "mlp-mse": build("mlp", (6,), 2, loss="mse"),
    "custom": Model([Conv2d(3, 5), ReLU(), MaxPool2d(3), Conv2d(2, 1), Flatten(), Dense(4)], (6, 7, 2)),
}
by_network = pytest.mark.parametrize("name", NETWORKS)


def draw(model: Model, batch: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return float64 parameters with biases off zero, inputs, and labels or targets."""
    rng = np.random.default_rng(seed)
    theta = model.init(rng).astype(np.float64) + 0.01 * rng.standard_normal(model.layout.size)
    x = rng.standard_normal((batch, *model.input_shape))
    if model.loss == "mse":
        return theta, x, rng.standard_normal((batch, model.outputs))
    return theta, x, rng.integers(0, model.outputs, batch)


@by_network
@pytest.mark.parametrize("batch", [1, 4])
def test_the_gradient_is_that_of_a_central_difference(name: str, batch: int) -> None:
    model = NETWORKS[name]
    theta, x, y = draw(model, batch)
    loss, gradient = model.loss_and_grad(theta, x, y)
    assert math.isfinite(loss)
    rng = np.random.default_rng(1)
    check_gradient(lambda t: model.loss_and_grad(t, x, y)[0], gradient, theta, rng)
    for part in model.layout.slices.values():  # each tensor alone: a large one must not hide a small one
        only = np.zeros_like(theta)
        only[part] = 1
        check_gradient(
            lambda p, part=part: model.loss_and_grad(np.r_[theta[: part.start], p, theta[part.stop :]], x, y)[0],  # type: ignore[misc]
            gradient[part],
            theta[part],
            rng,
        )


@by_network
def test_float32_is_the_same_computation(name: str) -> None:
    model = NETWORKS[name]
    theta, x, y = draw(model, 5)
    loss, gradient = model.loss_and_grad(theta, x, y)
    narrow_loss, narrow = model.loss_and_grad(theta.astype(np.float32), x, y)  # theta's dtype decides, not the data's
    assert narrow.dtype == model.forward(theta.astype(np.float32), x).dtype == np.float32
    assert gradient.dtype == model.forward(theta, x).dtype == np.float64
    assert narrow_loss == pytest.approx(loss, rel=1e-5)
    assert np.linalg.norm(narrow - gradient) < 1e-5 * np.linalg.norm(gradient)


def test_forward_is_the_definition() -> None:
    model = NETWORKS["cnn-small"]  # (7, 10, 1): both pools leave something over
    theta, x, _ = draw(model, 2)
    p = model.layout.views(theta)
    h = np.maximum(naive(x, p["conv1.weight"]) + p["conv1.bias"], 0)  # (2, 7, 10, 16)
    h = h[:, :6].reshape(2, 3, 2, 5, 2, 16).max(axis=(2, 4))
    h = np.maximum(naive(h, p["conv2.weight"]) + p["conv2.bias"], 0)  # (2, 3, 5, 32)
    h = h[:, :2, :4].reshape(2, 1, 2, 2, 2, 32).max(axis=(2, 4))  # (2, 1, 2, 32)
    h = np.maximum(np.einsum("bhwc,hwcu->bu", h, p["dense1.weight"].reshape(1, 2, 32, 128)) + p["dense1.bias"], 0)
    expected = h @ p["dense2.weight"] + p["dense2.bias"]
    np.testing.assert_allclose(model.forward(theta, x), expected, rtol=1e-10, atol=1e-10)


def test_the_named_models_have_the_promised_tensors() -> None:
    cnn = build("cnn", (32, 32, 3), 10)
    assert dict(cnn.layout.entries) == {
        "conv1.weight": (5, 5, 3, 32),
        "conv1.bias": (32,),
        "conv2.weight": (5, 5, 32, 64),
        "conv2.bias": (64,),
        "dense1.weight": (8 * 8 * 64, 512),
        "dense1.bias": (512,),
        "dense2.weight": (512, 10),
        "dense2.bias": (10,),
    }
    assert cnn.layout.size == 2_432 + 51_264 + 2_097_664 + 5_130
    conv4 = build("conv4", (32, 32, 3), 10)
    assert dict(conv4.layout.entries) == {
        "conv1.weight": (3, 3, 3, 32),
        "conv1.bias": (32,),
        **{f"conv{i}.weight": (3, 3, 32, 32) for i in (2, 3, 4)},
        **{f"conv{i}.bias": (32,) for i in (2, 3, 4)},
        "dense1.weight": (2 * 2 * 32, 10),
        "dense1.bias": (10,),
    }
    # 3 * 3 * 3 * 32 + 32 and three times 3 * 3 * 32 * 32 + 32, and 128 numbers for each class
    assert conv4.layout.size == 896 + 3 * 9_248 + 128 * 10 + 10 == 28_640 + 1_290
    assert build("cnn-small", (32, 32, 3), 10).layout.size == 448 + 4_640 + 262_272 + 1_290
    assert build("mlp", (28, 28), 10).layout.size == 157_000 + 40_200 + 2_010


def test_he_initialisation() -> None:
    model = build("cnn", (32, 32, 3), 10)
    theta = model.init(seed=3)
    assert theta.dtype == np.float32
    for name, view in model.layout.views(theta).items():
        if name.endswith(".bias"):
            assert not view.any()
            continue
        fan_in = {"conv1": 75, "conv2": 800, "dense1": 4096, "dense2": 512}[name.split(".")[0]]
        # Five standard errors of a standard deviation and of a mean, over n draws.
        assert view.std() == pytest.approx(math.sqrt(2 / fan_in), rel=5 / math.sqrt(2 * view.size))
        assert abs(view.mean()) < 5 * math.sqrt(2 / fan_in / view.size)
    assert theta.tobytes() == model.init(seed=3).tobytes() == model.init(np.random.default_rng(3)).tobytes()
    assert theta.tobytes() != model.init(seed=4).tobytes()


@by_network
def test_a_used_workspace_changes_nothing(name: str) -> None:
    model, workspace = NETWORKS[name], Workspace()
    for seed, batch in enumerate((5, 2, 7, 1, 5)):
        theta, x, y = draw(model, batch, seed)
        theta = theta.astype(np.float64 if seed == 3 else np.float32)
        used, fresh = (model.loss_and_grad(theta, x, y, space) for space in (workspace, Workspace()))
        assert used[0] == fresh[0]
        assert used[1].tobytes() == fresh[1].tobytes()
        outputs = {model.forward(theta, x, space).tobytes() for space in (workspace, Workspace(), None)}
        assert len(outputs) == 1
        own = model.loss_and_grad(theta, x, y)  # in what earlier calls left in the model's
        assert (own[0], own[1].tobytes()) == (fresh[0], fresh[1].tobytes())


@by_network
def test_results_are_the_callers_own_and_arguments_are_only_read(name: str) -> None:
    model, workspace = NETWORKS[name], Workspace()
    theta, x, y = (array.astype(np.float32) if array.dtype == np.float64 else array for array in draw(model, 3))
    for array in (theta, x, y):
        array.flags.writeable = False  # a write raises
    outputs = model.forward(theta, x, workspace)
    _, gradient = model.loss_and_grad(theta, x, y, workspace)
    before = outputs.tobytes(), gradient.tobytes()
    model.loss_and_grad(theta + 1, x + 1, y, workspace)
    model.forward(theta + 1, x + 1, workspace)
    assert before == (outputs.tobytes(), gradient.tobytes())
    out = np.full_like(theta, np.nan)
    assert model.loss_and_grad(theta, x, y, workspace, out)[1] is out
    assert out.tobytes() == gradient.tobytes()


def test_a_model_predicts_while_it_trains() -> None:
    model = NETWORKS["cnn-small"]
    theta, x, y = draw(model, 6)

    def train() -> bytes:
        here, workspace = theta.copy(), Workspace()
        for _ in range(30):
            here -= 0.1 * model.loss_and_grad(here, x, y, workspace)[1]
        return here.tobytes()

    def predict() -> set[bytes]:
        workspace = Workspace()
        return {model.forward(theta, x[:4], workspace).tobytes() for _ in range(60)}

    alone = train(), predict()
    with ThreadPoolExecutor(2) as pool:
        trained, predicted = pool.submit(train), pool.submit(predict)
        assert (trained.result(), predicted.result()) == alone
    assert len(alone[1]) == 1


def test_training_lowers_the_loss() -> None:
    model = NETWORKS["cnn"]
    theta, x, y = draw(model, 8)
    first, _ = model.loss_and_grad(theta, x, y)
    for _ in range(20):
        theta -= 0.05 * model.loss_and_grad(theta, x, y)[1]
    assert model.loss_and_grad(theta, x, y)[0] < 0.2 * first


def test_pixels_are_normalised_by_fixed_constants() -> None:
    layers, theta = [Dense(1)], np.array([1.0, 0.0])  # the identity
    pixels = np.array([[0], [255], [51]], np.uint8)
    pictures = Model(layers, (1,), "mse", PICTURES)  # (pixel / 255 - 0.5) / 0.25
    for x in (pixels, np.array([[0.0], [1.0], [0.2]])):
        np.testing.assert_allclose(pictures.forward(theta, x), [[-2.0], [2.0], [-1.2]], rtol=1e-14)
    raw = Model(layers, (1,), "mse")
    np.testing.assert_allclose(raw.forward(theta, pixels), [[0.0], [1.0], [0.2]], rtol=1e-14)
    assert raw.forward(theta, np.array([[7.5]])).tolist() == [[7.5]]
    for mean, std in [(0.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (0.0, -1.0)]:
        with pytest.raises(InputError, match="above 0"):
            Normalization(mean, std)


@by_network
def test_an_empty_batch_has_empty_outputs(name: str) -> None:
    model = NETWORKS[name]
    outputs = model.forward(model.init(), np.zeros((0, *model.input_shape), np.float32))
    assert outputs.shape == (0, model.outputs)


def test_what_does_not_fit_is_refused() -> None:
    model = build("mlp", (4,), 3)
    theta, x = model.init(), np.zeros((2, 4), np.float32)
    for y, inputs, parameters, message in [
        (np.array([0, 1, 2]), x, theta, "2 samples with 3 labels"),
        (np.array([], np.int64), x[:0], theta, "0 samples"),
        (np.array([0, 3]), x, theta, "0 to 2"),
        (np.array([0, 1]), np.zeros((2, 5), np.float32), theta, r"\(5,\): this network takes \(4,\)"),
        (np.array([0, 1]), x, theta[1:], "does not fit this layout"),
    ]:
        with pytest.raises(InputError, match=message):
            model.loss_and_grad(parameters, inputs, y)


def test_networks_that_cannot_be_are_refused() -> None:
    for layers, shape, message in [
        ([Conv2d(1, 3)], (4, 4, 1), "must end in one axis"),
        ([Flatten()], (4, 4, 1), "have weights"),
        ([], (4,), "have weights"),
        ([Dense(2)], (), "input shape"),
        ([Dense(2)], (0,), "input shape"),
        ([Flatten(), Dense(2)], (-2, -3), "input shape"),
    ]:
        with pytest.raises(InputError, match=message):
            Model(layers, shape)
    with pytest.raises(InputError, match="unknown loss 'hinge': expected one of cross-entropy, mse"):
        Model([Dense(2)], (4,), "hinge")
    with pytest.raises(InputError, match="unknown model 'resnet': expected one of cnn, cnn-small, conv4, mlp"):
        build("resnet", (4,), 2)


@pytest.mark.parametrize(("name", "least"), [("cnn", 4), ("cnn-small", 4), ("conv4", 16)])
def test_a_named_model_says_how_small_pictures_may_be(name: str, least: int) -> None:
    """Two pools of 2 leave one place of 4x4, four of 16x16."""
    assert build(name, (least, 3 * least, 1), 2).outputs == 2
    for shape in [(least - 1, 40, 1), (40, least - 1, 3), (1, 1, 1), (40,), (40, 40), (2, 40, 40, 1)]:
        message = f"{name} takes pictures .* of {least}x{least} or more, and the input shape is {re.escape(str(shape))}"
        with pytest.raises(InputError, match=message):
            build(name, shape, 2)
    for shape in [(1, 1, 1), (1,), (2, 3, 4, 5)]:
        assert build("mlp", shape, 2).outputs == 2


@by_network
def test_the_layer_list_survives_its_description(name: str) -> None:
    assert tuple(layers_from(NETWORKS[name].describe())) == NETWORKS[name].layers


@pytest.mark.parametrize(
    "description",
    [
        None,
        "Dense",
        [["Dense", 3]],
        [{"units": 3}],
        [{"layer": "Dropout", "rate": 1}],
        [{"layer": "Dense"}],
        [{"layer": "Dense", "units": 3, "rate": 1}],
        [{"layer": "Dense", "units": "3"}],
        [{"layer": "Dense", "units": True}],
        [{"layer": ["Dense"], "units": 3}],
        [{"layer": "Dense", "units": math.nan}],
        [{"layer": "Conv2d", "filters": 3, "kernel": 2}],
    ],
)
def test_a_damaged_layer_list_is_refused(description: object) -> None:
    with pytest.raises(InputError):
        layers_from(description)


def test_a_dropped_workspace_frees_its_memory_at_once() -> None:
    """Not when the garbage collector next comes by: on a board that is many megabytes too late."""
    workspace = Workspace()
    model = build("cnn-small", (8, 8, 3), 2)
    model.loss_and_grad(model.init(0), np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), workspace)
    dropped = weakref.ref(workspace)
    gc.disable()
    try:
        del workspace
        assert dropped() is None
    finally:
        gc.enable()
