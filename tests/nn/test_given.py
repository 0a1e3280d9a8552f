"""The one gate for what people give as samples and as labels."""

import datetime
import logging
from pathlib import Path

import numpy as np
import pytest

from edgemeta.errors import DataError
from edgemeta.nn.given import positions, read_labels, refuse_numbers, samples_of, targets_of

BYTES = np.array([0, 1, 127, 128, 254, 255] * 2, np.uint8).reshape(2, 2, 1, 3)  # pictures (H, W, C) = (2, 1, 3)
SHAPE = (2, 1, 3)
ARRAY_OF_ARRAYS = np.empty(2, object)
ARRAY_OF_ARRAYS[:] = list(BYTES)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">i2", "int32", "int64", "uint64", object])
@pytest.mark.parametrize("shape", [None, SHAPE])
def test_whole_numbers_of_any_type_are_bytes(dtype, shape):
    x = samples_of(BYTES.astype(dtype), shape)
    assert x.dtype == np.uint8
    assert x.tolist() == BYTES.tolist()


@pytest.mark.parametrize(
    "given",
    [BYTES.tolist(), list(BYTES), tuple(BYTES), ARRAY_OF_ARRAYS, np.ma.array(BYTES)],
    ids=["nested", "list", "tuple", "objects", "masked"],
)
def test_what_numpy_makes_an_array_of_is_one(given):
    assert samples_of(given, SHAPE).tobytes() == BYTES.tobytes()


def test_bytes_are_not_even_copied():
    assert samples_of(BYTES, SHAPE) is BYTES


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", object])
def test_floats_from_0_to_1_stay_what_they_are(dtype):
    given = np.array([0, 0.25, 0.5, 0.75, 1, -0.03125, 1.03125, 1, 1, 1, 1, 1]).reshape(BYTES.shape)
    x = samples_of(given.astype(dtype), SHAPE)
    assert x.dtype == np.dtype("float32")  # of this machine's byte order
    assert x.tolist() == given.tolist()  # all of them are exact; a little beyond 0..1 is rounding


def test_false_and_true_are_0_and_1():
    x = samples_of(BYTES > 127)
    assert x.dtype == np.float32
    assert x.ravel().tolist() == [0, 0, 0, 1, 1, 1] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (BYTES.astype(np.int8), "whole numbers from -128 to 127, expected whole numbers from 0 to 255"),
        (BYTES.astype(np.int32) + 1, "from 1 to 256"),
        (BYTES.astype(np.int64) * 257, "from 0 to 65535"),
        (BYTES.astype(np.float32), r"floats from 0 to 255, expected .* \(bytes\) or floats from 0 to 1: scale them"),
        (BYTES / 127.5 - 1, "floats from -1 to 1,"),
        (BYTES / 200, "floats from 0 to 1.275"),
        (BYTES.astype(float).tolist(), "floats from 0 to 255"),
        (np.where(BYTES > 200, np.nan, 0.5), "not finite"),
        (np.where(BYTES > 200, -np.inf, 0.5), "not finite"),
        (np.full(BYTES.shape, 1e300), "too large"),
        (np.ma.array(BYTES, mask=BYTES > 200), "masked"),
        (BYTES.astype(str), "dtype <U"),
        (BYTES.astype(bytes), "dtype .S"),
        (BYTES * 1j, "complex128"),
        (BYTES.astype("M8[s]"), "datetime64"),
        (np.zeros(2, [("a", "i4")]), "expected numbers"),
        ([[[[10**400] * 3]] * 2], "dtype object"),
        ([None, None], "dtype object"),
        ({"x": 1}, "dtype object"),
        ((sample for sample in BYTES), "dtype object"),
        ([BYTES[0], BYTES[1, :1]], "no array .*all of one shape"),
        (None, "None is no array"),
        ("a.png", "'a.png' is no array; of files, read_picture and open_data"),
        (Path("a.png"), "'a.png' is no array"),
        (b"\x89PNG" * 10**6, "is no array"),
        (np.array(3), r"shape \(\)"),
        (BYTES[0, 0], r"shape \(1, 3\), and this network takes \(2, 1, 3\)"),
        (BYTES[np.newaxis], r"shape \(1, 2, 2, 1, 3\)"),
        (BYTES.transpose(0, 3, 2, 1), r"shape \(2, 3, 1, 2\)"),
    ],
)
def test_pictures_that_are_neither_are_refused_in_a_line(given, said):
    with pytest.raises(DataError, match=said) as refused:
        samples_of(given, SHAPE, "images")
    assert str(refused.value).startswith("images: ")
    assert len(str(refused.value)) < 300


def test_one_sample_is_a_batch_of_one_and_none_are_a_batch_of_none():
    assert samples_of(BYTES[1], SHAPE).tolist() == BYTES[1:].tolist()
    assert samples_of(BYTES[1].tolist(), SHAPE).tolist() == BYTES[1:].tolist()
    assert samples_of([], SHAPE).shape == samples_of(BYTES[:0] / 255, SHAPE).shape == (0, 2, 1, 3)


def test_grey_pictures_need_no_channel_axis():
    grey, shape = np.arange(18, dtype=np.uint8).reshape(3, 3, 2), (3, 2, 1)
    assert samples_of(grey).shape == (3, 3, 2, 1)
    for given in (grey, grey.astype(np.int64), grey.tolist(), grey[..., np.newaxis]):
        assert samples_of(given, shape).tobytes() == grey.tobytes()
        assert samples_of(given[1], shape).tobytes() == grey[1].tobytes()
        assert samples_of(given, shape).shape == (3, 3, 2, 1)
    assert samples_of(grey / 255, shape).shape == (3, 3, 2, 1)
    assert samples_of(grey.astype(np.int64)).dtype == np.float32  # of two axes, and nobody says that they are pictures


READINGS = [[-3, 0, 70000], [2, 1, 0]]


@pytest.mark.parametrize("shape", [None, (3,)])
def test_what_is_no_picture_may_be_any_finite_numbers(shape):
    for given in (READINGS, np.array(READINGS, np.int32), np.array(READINGS, np.float64)):
        x = samples_of(given, shape)
        assert x.dtype == np.float32
        assert x.tolist() == READINGS
    small = np.array([[3, 2, 200]], np.uint8)  # no pixels: the same as the whole numbers that they are
    assert samples_of(small, shape).tolist() == samples_of(small.astype(np.int64), shape).tolist() == [[3, 2, 200]]
    for given in ([[np.nan, 0, 0]], [[np.inf, 0, 0]], [["a", "b", "c"]]):
        with pytest.raises(DataError):
            samples_of(given, shape)


def test_bytes_that_are_no_pictures_are_spoken_of_where_nobody_says_what_they_are(caplog):
    samples_of(np.full((2, 784), 255))
    assert "samples of shape (784,), which are no pictures" in caplog.text
    caplog.clear()
    samples_of(np.full((2, 784), 255), (784,))
    samples_of(np.full((2, 784), 256))
    samples_of(np.eye(4, dtype=np.int64))
    assert not caplog.records


Y = [0, 2, 1, 2]
NAMES = ["ant", "bee", "cow"]
NAMED = ["ant", "cow", "bee", "cow"]


@pytest.mark.parametrize(
    "given",
    [
        Y,
        np.array(Y, np.uint8),
        np.array(Y, np.float32),
        np.array(Y, object),
        np.array(Y)[:, np.newaxis],
        [[0], [2], [1], [2]],
        np.ma.array(Y),
        np.eye(3)[Y],
        np.eye(3, dtype=np.int8)[Y],
        np.eye(3, dtype=bool)[Y].tolist(),
        NAMED,
        np.array(NAMED),
        np.array(NAMED, object),
        np.array(NAMED)[:, np.newaxis],
        np.array([name.encode() for name in NAMED]),
        [name.encode() for name in NAMED],
    ],
)
def test_labels_in_any_form_are_positions_among_the_classes(given):
    found = positions(read_labels(given), NAMES)
    assert found.dtype == np.int64
    assert found.tolist() == Y


def test_what_labels_say_of_themselves():
    assert read_labels(np.eye(5)[Y]).columns == 5
    assert not read_labels(Y).columns
    assert read_labels(NAMED).text
    assert not read_labels([]).text
    assert read_labels([True, False]).values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["ant", None, "bee"], "label 1 is None"),
        (["ant", "bee", float("nan")], "label 2 is nan"),
        (np.array(["ant", np.nan], object), "label 1 is nan"),
        (["ant", 1], "label 1 is 1, expected names for all, or whole numbers for all"),
        ([1, "ant"], "label 1 is 'ant'"),
        ([0.0, np.nan], "label 1 is nan"),
        (np.array([1, np.inf]), "label 1 is inf"),
        ([0, 0.5], "label 1 is 0.5"),
        ([0, 10**10], "label 1 is 10000000000"),
        (np.array([0, 2**64 - 1], np.uint64), "label 1 is 18446744073709551615"),
        ([0, 10**400], "label 1"),
        ([[0.5, 0.5]], r"row 0 is \[0.5, 0.5\]"),
        ([[0, 1], [1, 1]], r"row 1 is \[1, 1\], expected .* one-hot rows with a single 1"),
        ([[1, 0], [0, 0]], "row 1"),
        ([[1, 0, 2]], "row 0"),
        ([[1.0, np.nan]], "label 1 is nan"),
        (np.array([[1.0, np.nan]]), "row 0"),
        ([["ant", "bee"]], r"shape \(1, 2\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ([[1, 0], [1]], r"label 0 is \[1, 0\]"),
        (1, r"shape \(\)"),
        ("ant", "'ant' is no array"),
        (None, "None is no array"),
        ({0: "ant"}, "label 0 is {0: 'ant'}"),
        ([1j], "label 0 is 1j"),
        (np.array([1j]), "complex"),
        ([datetime.date(2026, 1, 1)], "label 0 is datetime"),
        (np.array(["2026-01-01"], "M8[D]"), "datetime64"),
        (np.ma.array(Y, mask=[0, 1, 0, 0]), "masked"),
        ([b"\xff"], "UTF-8"),
    ],
)
def test_labels_that_are_none_are_refused_in_a_line(given, said):
    with pytest.raises(DataError, match=said) as refused:
        read_labels(given, "labels")
    assert str(refused.value).startswith("labels: ")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["ant", "bear", "ape"], "does not know ape, bear: its classes are ant, bee, cow"),
        ([0, 3, -1], "does not know -1, 3"),
        (np.eye(4)[Y], "of 4 columns: expected 3"),
        (range(100), "3, 4, 5, 6, 7, 8, 9, 10 and 89 more"),
    ],
)
def test_labels_that_the_classes_lack_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        positions(read_labels(given), NAMES)


@pytest.mark.parametrize("classes", [["3", "7"], ["1", "2"], ["1", "0"], ["cat", "0"], ["0", "1.0"], ["-1", "1"]])
def test_whole_numbers_are_no_labels_where_other_numbers_are_names(classes):
    with pytest.raises(DataError, match=f"positions of {classes[0]}, {classes[1]}: give names, as text"):
        refuse_numbers(read_labels([0, 1]), classes)
    for given in (classes[::-1], np.eye(2)[::-1]):  # of rows there is no other way to read them
        refuse_numbers(read_labels(given), classes)
        assert positions(read_labels(given), classes).tolist() == [1, 0]


@pytest.mark.parametrize("classes", [["0", "1"], ["cat", "1"], ["0", "dog"], ["7up", "b52"]])
def test_they_are_where_no_name_is_another_number(classes):
    refuse_numbers(read_labels([1, 0]), classes)
    assert positions(read_labels([1, 0]), classes).tolist() == [1, 0]


def test_names_are_compared_in_one_form():
    composed, apart = "caf\u00e9", "cafe\u0301"
    for one, other in ((composed, apart), (apart, composed)):
        assert positions(read_labels(["tea", one]), [other, "tea"]).tolist() == [1, 0]
    assert read_labels([apart]).values.tolist() == [composed]


def test_targets_are_finite_numbers():
    assert targets_of([[1, 2.5]]).tolist() == [[1, 2.5]]
    for given in ([np.nan], ["a"], None, 3.0, [[1], [2, 3]], [1j]):
        with pytest.raises(DataError, match=r"^labels: "):
            targets_of(given, "labels")


def test_the_gate_is_quiet(caplog):
    with caplog.at_level(logging.DEBUG):
        samples_of(BYTES), samples_of(READINGS), read_labels(Y)
    assert not caplog.records
