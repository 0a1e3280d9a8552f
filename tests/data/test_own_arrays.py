"""One's own arrays: names of classes, pairs for each participant, and what is refused of them."""

import numpy as np
import pytest

from edgemeta.data import from_arrays
from edgemeta.data.arrays import own_splits
from edgemeta.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
Y = np.array([0, 1, 0, 1, 1, 0])
PART = (X, Y)
ONE = (PART, PART)


def labelled(y, y_test=None):
    return ((X, y), (X, y if y_test is None else y_test))


def test_names_are_the_classes_in_order():
    data = from_arrays(X, ["dog", "cat", "dog", "cat", "eel", "cat"])
    assert data.classes == ("cat", "dog", "eel")
    assert data.labels.tolist() == [1, 0, 1, 0, 2, 0]


def test_one_hot_rows_say_how_many_classes_there_are():
    data = from_arrays(X, np.eye(4)[Y])
    assert data.classes == ("0", "1", "2", "3")
    assert data.labels.tolist() == Y.tolist()


def test_names_are_those_of_all_participants_together():
    splits = own_splits([labelled(["dog"] * 6, ["eel"] * 6), labelled(["cat"] * 6)])
    assert {split.train.classes for split in splits} == {("cat", "dog", "eel")}
    assert [split.train.labels[0] for split in splits] == [1, 0]
    assert [split.test.labels[0] for split in splits] == [2, 0]


@pytest.mark.parametrize(
    ("y", "asked", "outputs", "classes"),
    [
        (Y, None, None, ("0", "1")),
        (Y, 4, None, ("0", "1", "2", "3")),
        (Y, None, 3, ("0", "1", "2")),
        (Y, ("cat", "dog"), None, ("cat", "dog")),
        (Y, ("cat", "dog", "eel"), 3, ("cat", "dog", "eel")),
        (Y.astype(str), 3, None, ("0", "1", "2")),
        (np.array(["cat", "dog"])[Y], None, 5, ("cat", "dog")),  # a network of five: refused where it is known
    ],
)
def test_whose_names_they_are(y, asked, outputs, classes):
    (split,) = own_splits([labelled(y)], asked, outputs)
    assert split.train.classes == split.test.classes == classes
    assert split.train.labels.tolist() == Y.tolist()


def test_names_that_are_given_may_be_in_another_order():
    (split,) = own_splits([labelled(np.array(["cat", "dog"])[Y])], ("dog", "cat"))
    assert split.train.labels.tolist() == (1 - Y).tolist()


@pytest.mark.parametrize("data", [[ONE, ONE], (ONE, ONE), iter([ONE, ONE]), [[list(PART), PART], ONE]])
def test_participants_come_in_any_iterable(data):
    assert [len(split.test) for split in own_splits(data)] == [6, 6]


PAIRS = r"expected a list, even of one, with \(\(x_train, y_train\), \(x_test, y_test\)\) for each participant"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ONE, rf"participant 0 is tuple of 2 \(ndarray, ndarray\): {PAIRS}"),
        ([PART, PART], rf"participant 0 is tuple of 2 \(ndarray, ndarray\): {PAIRS}"),
        ([ONE, (*PART, *PART)], rf"participant 1 is tuple of 4: {PAIRS}"),
        ([], f"data is empty: {PAIRS}"),
        (iter(()), f"data is empty: {PAIRS}"),
        ("data.npz", f"data is str: {PAIRS}; the setting data.source is for what is in files"),
        ({0: ONE}, f"data is dict: {PAIRS}"),
        (3, f"data is int: {PAIRS}"),
        (X, f"participant 0 is ndarray: {PAIRS}"),
        (["ab"], f"participant 0 is str: {PAIRS}"),
        ([None], f"participant 0 is NoneType: {PAIRS}"),
        ([ONE, labelled([])], "participant 1: training data: x has 6 samples and y 0 labels"),
        ([ONE, ((X[:0], Y[:0]), PART)], "participant 1: 0 training and 6 test samples: give some of both"),
        ([ONE, (PART, (X[:0], Y[:0]))], "participant 1: 6 training and 0 test samples"),
        ([ONE, (PART, (X[:, :2], Y))], r"training samples of shape \(4, 4, 3\) and test samples of \(2,"),
        ([ONE, ((X[:, :2], Y), (X[:, :2], Y))], r"participant 1: samples of shape \(2, 4, 3\), and participant 0"),
        ([ONE, ((X.astype(float), Y), PART)], "participant 1: training data: x: pictures of floats from 0 to 255"),
        ([(PART, (X - 1.0, Y))], "participant 0: test data: x: pictures of floats"),
        ([labelled(Y, np.where(Y == 0, np.nan, 1))], "participant 0: y_test: label 0 is nan"),
        ([labelled(None)], "participant 0: y_train: None is no array"),
        ([labelled(Y.astype(str), Y)], "some labels are names and others numbers"),
        ([labelled(2_000_000 * Y)], "label 2000000: without a list of classes, labels must be below 10000"),
        ([labelled(np.zeros((6, 20_000)) + np.eye(1, 20_000))], "label 19999: without a list"),
        ([labelled(Y - 1)], "labels run from -1 to 0"),
        ([labelled(np.eye(2)[Y], np.eye(3)[Y])], "one-hot labels of 2 columns: expected 3"),
    ],
)
def test_what_they_are_not_is_said_with_whose_it_is(data, said):
    with pytest.raises(DataError, match=said):
        own_splits(data)


def test_whole_numbers_are_refused_where_they_could_be_names():
    with pytest.raises(DataError, match="give names, as text"):
        own_splits([ONE], ("3", "7"))
    (split,) = own_splits([labelled(np.array(["3", "7"])[Y])])
    assert (split.train.classes, split.train.labels.tolist()) == (("3", "7"), Y.tolist())


def test_a_participant_may_have_one_class():
    splits = own_splits([labelled(0 * Y), labelled(0 * Y + 1)])
    assert [set(split.train.labels.tolist()) for split in splits] == [{0}, {1}]
    assert len(own_splits([labelled(0 * Y)], ("cat", "dog"))) == 1  # there is another one, elsewhere
