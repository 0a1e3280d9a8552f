"""A device's own arrays: through the same gate as all others, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest
from runs import arrays

from edgemeta.config import DataConfig
from edgemeta.device.own import own_part
from edgemeta.errors import DataError

NAMES = np.array(["cat", "dog"])
X, Y = arrays(40, classes=2)


def part(given, classes=("cat", "dog")):
    own = own_part(given, (4, 4, 1), classes, DataConfig(), 0, 0, cut=False)
    return own.train.x, own.train.y.tolist()


@pytest.mark.parametrize(
    "given",
    [
        (X, NAMES[Y]),
        (X, np.eye(2)[Y]),
        (X, Y[:, np.newaxis]),
        (X.astype(np.int64), Y),
        (X.tolist(), Y.tolist()),
        lambda: (X, NAMES[Y].tolist()),
    ],
)
def test_a_devices_arrays_go_through_the_same_gate(given):
    x, y = part(given)
    expected, labels = part((X, Y))
    assert x.tobytes() == expected.tobytes()
    assert y == labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((X.astype(np.float32), Y), "floats from 0 to 255"),
        ((X, np.where(Y == 0, np.nan, 1)), "label 0 is nan"),
        ((X, ["zebra"] * 40), "does not know zebra: its classes are cat, dog"),
        ((X, Y, X, Y), r"data is tuple of 4: expected a SPEC, \(x, y\), or \(\(x_train"),
        (X[:2], "data is ndarray"),
        ({"x": X, "y": Y}, "data is dict"),
        (lambda: None, "data is NoneType"),
        ((pair for pair in (X, Y)), "data is generator"),
        ((Path("a.npz"), Y), "'a.npz' is no array"),
        (((X, Y), (X[:, :2], Y)), "training samples of shape"),
        (((X, Y), (X[:0], Y[:0])), "40 training and 0 test samples"),
        ((X[:0], Y[:0]), "the data is empty"),
    ],
)
def test_and_what_they_are_not_is_said(given, said):
    with pytest.raises(DataError, match=said):
        part(given)


def test_a_devices_whole_numbers_are_no_labels_where_names_are_other_numbers():
    with pytest.raises(DataError, match="give names, as text"):
        part((X, Y), ("3", "7"))
    assert part((X, np.array(["3", "7"])[Y]), ("3", "7"))[1] == part((X, Y))[1]


def test_a_device_may_have_one_class():
    assert set(part((X, ["dog"] * 40))[1]) == {1}
    assert set(part(((X, 0 * Y), (X, 0 * Y)))[1]) == {0}


def test_a_part_that_is_cut_says_what_is_left_out(caplog):
    cutting = DataConfig(participants=3, partition="iid")
    own_part(((X, Y), (X, Y)), (4, 4, 1), ("cat", "dog"), cutting, 0, 1, cut=True)
    assert "left out, to make participants equal: 1 training and 1 test samples" in caplog.text
