"""What nobody works with, and which classes cannot be learned or scored, with the reason."""

import numpy as np
import pytest

from edgemeta.config import DataConfig
from edgemeta.data import Split, from_arrays
from edgemeta.data.leftout import LeftOut, one_sided
from edgemeta.fed.participants import divide, left_over

NAMES = ("ant", "bee", "cow")


def samples(*counts):
    """So many samples of each class."""
    y = np.repeat(np.arange(len(counts)), counts)
    return from_arrays(np.zeros((len(y), 1), np.float32), y, NAMES)


def left_of(train, test, **data):
    split, config = Split(samples(*train), samples(*test)), DataConfig(**data)
    participants, _ = divide(split, config, 0)
    return left_over(split, participants, config)


def test_nothing_is_said_where_all_is_used():
    assert left_of((10, 10, 10), (4, 4, 4), participants=2, partition="iid") == LeftOut(0, 0, ())


def test_what_does_not_divide():
    why = "left out, to make participants equal: 1 training and 2 test samples"
    assert left_of((10, 10, 11), (4, 4, 6), participants=3, partition="iid") == (1, 2, (why,))


def test_a_class_that_only_the_test_data_has_is_not_scored():
    why = "6 test samples are of cow, which the training data lacks: they are not scored"
    assert left_of((10, 10, 0), (4, 4, 6), participants=2, partition="iid") == (0, 6, (why,))
    one = "1 test sample is of cow, which the training data lacks: they are not scored"
    assert left_of((10, 10, 0), (4, 4, 1), participants=2, partition="iid").why == (one,)


def test_a_class_that_only_the_training_data_has_is_learned_and_not_scored():
    why = "10 training samples are of cow, which the test data lacks: they are learned, and not scored"
    assert left_of((10, 10, 10), (4, 4, 0), participants=2, partition="iid") == (0, 0, (why,))


def test_a_small_class_makes_everyones_part_small():
    """Two participants with one class each: bee's 4 samples are all that its owner has, so the other has 4, too."""
    left = left_of((60, 4, 0), (10, 10, 0), participants=2, partition="shards:1")
    why = (
        "left out, to make participants equal: 56 training and 0 test samples (of ant); "
        "each has 4 and 10, as the classes with the fewest allow"
    )
    assert left == (56, 0, (why,))


def test_classes_that_nobody_was_dealt():
    left = left_of((10, 10, 10), (4, 4, 4), participants=1, partition="shards:2")
    (why,) = left.why
    assert (left.train, left.test) == (10, 4)
    assert why.startswith("no participant has ")
    assert why.endswith(" (10 training and 4 test samples): data.partition deals out fewer classes than there are")


def test_with_validation_the_test_data_is_not_scored():
    left = left_of((10, 10, 10), (4, 4, 0), participants=2, partition="iid", validation=0.2)
    assert left == (0, 8, ("no test sample of 8 is scored, but training samples set aside (data.validation)",))


def test_where_all_is_used_it_is_only_said_which_classes_one_side_lacks():
    assert one_sided([Split(samples(3, 3, 0), samples(2, 2, 0))]) == []
    assert one_sided([Split(samples(3, 3, 0), samples(0, 2, 4))]) == [
        "4 test samples are of cow, which the training data lacks: they are scored, and not learned",
        "3 training samples are of ant, which the test data lacks: they are learned, and not scored",
    ]
    # What one participant lacks, another has.
    assert one_sided([Split(samples(3, 0, 0), samples(0, 2, 0)), Split(samples(0, 3, 0), samples(2, 0, 0))]) == []


@pytest.mark.parametrize("classes", [3, 30])
def test_many_names_are_counted(classes):
    y = np.arange(classes)
    x = np.zeros((classes, 1), np.float32)
    (said,) = one_sided([Split(from_arrays(x, y), from_arrays(x[:0], y[:0], [str(i) for i in y]))])
    assert ("and 22 more" in said) == (classes == 30)
