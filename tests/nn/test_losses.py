"""Both losses: by hand, and held against central differences."""

import math

import numpy as np
import pytest
from gradients import check_gradient

from edgemeta.errors import InputError
from edgemeta.nn import softmax
from edgemeta.nn.losses import LOSSES, cross_entropy, squared_error

pytestmark = pytest.mark.board


def test_cross_entropy_by_hand() -> None:
    logits = np.array([[math.log(3), 0.0], [0.0, 0.0]])  # p = (3/4, 1/4) and (1/2, 1/2)
    loss, dlogits = cross_entropy(logits, np.array([1, 0], np.int64))
    assert loss == pytest.approx((math.log(4) + math.log(2)) / 2, rel=1e-15)
    np.testing.assert_allclose(dlogits, [[0.375, -0.375], [-0.25, 0.25]], rtol=1e-15)  # (p - onehot) / 2


def test_squared_error_by_hand() -> None:
    loss, doutputs = squared_error(np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[0.0, 2.0], [4.0, 3.0]]))
    assert loss == 1.5  # (1 + 0 + 1 + 4) / 4
    assert doutputs.tolist() == [[0.5, 0.0], [-0.5, 1.0]]  # 2 / 4 of the differences


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_central_differences(dtype: type) -> None:
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((6, 4))
    for row in LOSSES.values():
        loss, y = row.function, rng.integers(0, 4, 6) if row.classifies else rng.standard_normal((6, 4))
        if row.embeds:
            y = np.array([0, 0, 5, 5, 5, 2], np.int64)
        check_gradient(lambda z, loss=loss, y=y: loss(z, y)[0], loss(outputs, y)[1], outputs, rng)  # type: ignore[misc]
        narrow = loss(outputs.astype(dtype), y)
        assert narrow[1].dtype == dtype
        np.testing.assert_allclose(narrow[1], loss(outputs, y)[1], rtol=1e-4, atol=1e-6)


def test_large_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], np.float32)
    loss, dlogits = cross_entropy(logits, np.array([1], np.int64))
    assert loss == 2e4
    assert dlogits.tolist() == [[1.0, -1.0, 0.0]]
    assert softmax(logits).tolist() == [[1.0, 0.0, 0.0]]


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]], rtol=1e-15)


def test_labels_may_be_of_any_whole_type() -> None:
    logits = np.array([[1.0, 2.0], [0.0, 3.0]])
    expected = cross_entropy(logits, np.array([1, 0], np.int64))
    for kind in (np.uint8, np.int32):
        loss, dlogits = cross_entropy(logits, np.array([1, 0], kind))
        assert (loss, dlogits.tolist()) == (expected[0], expected[1].tolist())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "0 to 1"),
        ([0, -1], "from -1 to 0"),  # as an index it would silently be the last class
        ([[0], [1]], "2 whole numbers"),  # as an index it would silently be a (2, 2) table
        ([0.0, 1.0], "2 whole numbers"),
        ([0], "2 whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cross_entropy(np.zeros((2, 2)), np.array(labels))


def test_targets_that_do_not_fit_are_refused() -> None:
    assert squared_error(np.ones((2, 1)), np.array([0.0, 0.0]))[0] == 1.0  # a flat column is meant so
    for targets in (np.zeros((2, 3)), np.zeros(3), np.zeros((3, 2))):
        with pytest.raises(InputError, match=r"expected \(2, 2\)" if targets.ndim == 1 else "expected"):
            squared_error(np.zeros((2, 2)), targets)
