"""Who gets which samples: the promises that hold for every scheme, and the cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemeta.data import Partition, parse_partition, partition
from edgemeta.errors import DataError

CIFAR_TRAIN, CIFAR_TEST = np.arange(50_000) % 10, np.arange(10_000) % 10


def counts(labels, parts, classes):
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts])


def check_promises(train_y, test_y, classes, participants, parts: Partition):
    for labels, side, left_out in ((train_y, parts.train, parts.left_out[0]), (test_y, parts.test, parts.left_out[1])):
        used = np.concatenate(side)
        assert all(part.dtype == np.int64 for part in side)
        assert len(side) == participants
        assert len(np.unique(used)) == len(used), "a sample was given twice"
        assert used.min() >= 0
        assert used.max() < len(labels)
        assert len({len(part) for part in side}) == 1, "sizes differ"
        assert len(used) + left_out == len(labels)
    train, test = counts(train_y, parts.train, classes), counts(test_y, parts.test, classes)
    mix = train * (np.bincount(test_y, minlength=classes) > 0)
    wanted = mix / mix.sum(axis=1, keepdims=True) * test.sum(axis=1, keepdims=True)
    assert np.abs(test - wanted).max() < 1, "a test part's class mix is not its training part's, up to rounding"


@pytest.mark.parametrize("scheme", ["iid", "dirichlet:0.1", "dirichlet:0.5", "dirichlet:1000", "shards:2", "shards:10"])
def test_cifar_over_ten_is_exactly_5000_and_1000(scheme):
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 10, scheme, np.random.default_rng(3))
    check_promises(CIFAR_TRAIN, CIFAR_TEST, 10, 10, parts)
    assert [len(part) for part in parts.train] == [5000] * 10
    assert [len(part) for part in parts.test] == [1000] * 10
    assert parts.left_out == (0, 0)


def test_iid_has_every_class_alike():
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 10, "iid", np.random.default_rng(0))
    assert (counts(CIFAR_TRAIN, parts.train, 10) == 500).all()
    assert (counts(CIFAR_TEST, parts.test, 10) == 100).all()


def test_shards_are_whole_halves_where_the_numbers_divide():
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 10, "shards:2", np.random.default_rng(0))
    train, test = counts(CIFAR_TRAIN, parts.train, 10), counts(CIFAR_TEST, parts.test, 10)
    assert (np.sort(train, axis=1)[:, -2:] == 2500).all()
    assert ((train > 0).sum(axis=0) == 2).all(), "classes are not spread evenly"
    assert (test * 5 == train).all()


@pytest.mark.parametrize(("participants", "left_out"), [(3, (2, 1)), (7, (6, 4)), (12, (8, 4))])
@pytest.mark.parametrize("scheme", ["iid", "dirichlet:0.5", "shards:3"])
def test_only_what_cannot_be_divided_is_left_out(participants, left_out, scheme):
    if (participants, scheme) == (3, "shards:3"):
        left_out = (5_000, 1_000)  # nine of ten classes are used at all
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, participants, scheme, np.random.default_rng(1))
    check_promises(CIFAR_TRAIN, CIFAR_TEST, 10, participants, parts)
    assert parts.left_out == left_out


def test_one_class_each():
    train, test = np.repeat(np.arange(3), 10), np.repeat(np.arange(3), 4)
    parts = partition(train, test, 3, 4, "shards:1", np.random.default_rng(0))
    # Four participants of three classes: one class is shared, 5 + 5, so that everyone has 5.
    assert [len(part) for part in parts.train] == [5] * 4
    assert [len(part) for part in parts.test] == [2] * 4
    assert parts.left_out == (30 - 20, 12 - 8)
    assert sorted(np.bincount([train[part[0]] for part in parts.train])) == [1, 1, 2]


def test_shards_of_unlike_classes_take_as_much_as_the_smallest_share_allows():
    # Both participants have both classes; 30 samples over two are 15 each, whatever the classes' sizes.
    train, test = np.repeat([0, 1], [26, 4]), np.repeat([0, 1], [26, 4])
    parts = partition(train, test, 2, 2, "shards:2", np.random.default_rng(0))
    assert counts(train, parts.train, 2).tolist() == [[13, 2], [13, 2]]


@pytest.mark.parametrize("seed", range(10))
def test_a_class_goes_to_no_more_participants_than_it_has_samples(seed):
    train, test = np.repeat(np.arange(3), [1, 40, 40]), np.repeat(np.arange(3), 9)
    parts = partition(train, test, 3, 3, "shards:2", np.random.default_rng(seed))
    held = counts(train, parts.train, 3) > 0
    assert held.sum(axis=1).tolist() == [2, 2, 2]
    assert held.sum(axis=0)[0] == 1
    check_promises(train, test, 3, 3, parts)


def test_dirichlet_mixes_are_as_uneven_as_alpha_says():
    def largest_share(alpha):
        parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 100, f"dirichlet:{alpha}", np.random.default_rng(5))
        return (counts(CIFAR_TRAIN, parts.train, 10).max(axis=1) / 500).mean()

    assert largest_share(0.01) > 0.8 > largest_share(0.3) > 0.3 > largest_share(100) >= 0.1


def test_the_generator_decides():
    parts = [
        partition(CIFAR_TRAIN, CIFAR_TEST, 10, 4, "dirichlet:0.5", np.random.default_rng(seed)) for seed in (1, 1, 2)
    ]
    assert all(
        (a == b).all() for a, b in zip(parts[0].train + parts[0].test, parts[1].train + parts[1].test, strict=True)
    )
    assert any((a != b).any() for a, b in zip(parts[0].train, parts[2].train, strict=True))


def test_samples_come_in_random_order():
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 10, "shards:2", np.random.default_rng(0))
    half = CIFAR_TRAIN[parts.train[0][:2500]]
    assert 1100 < (half == half[0]).sum() < 1400  # half of a half, plus or minus six sigma


def test_a_class_without_test_samples_counts_for_nothing_there():
    train, test = np.repeat(np.arange(3), 20), np.repeat(np.arange(2), 10)
    parts = partition(train, test, 3, 2, "iid", np.random.default_rng(0))
    assert [len(part) for part in parts.test] == [10, 10]


def test_a_class_with_one_test_sample_does_not_cost_the_others():
    train, test = np.repeat(np.arange(2), [72, 8]), np.repeat(np.arange(2), [40, 1])
    parts = partition(train, test, 2, 4, "iid", np.random.default_rng(0))
    check_promises(train, test, 2, 4, parts)
    # Everyone trains on 18 + 2. Ten test samples each would be 9 + 1, four of the small class; of nine, 8.1 + 0.9
    # may be 9 + 0 for three of them, and 8 + 1 for the other.
    assert [len(part) for part in parts.test] == [9] * 4


labels_of = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.integers(0, 60), min_size=classes, max_size=classes),
        st.lists(st.integers(0, 12), min_size=classes, max_size=classes),
    )
)


@settings(max_examples=300, deadline=None)
@given(
    labels_of,
    st.integers(1, 25),
    st.one_of(
        st.just("iid"),
        st.floats(1e-12, 1e6).map(lambda alpha: f"dirichlet:{alpha}"),
        st.integers(1, 7).map(lambda each: f"shards:{each}"),
    ),
    st.integers(0, 2**32),
)
def test_every_scheme_keeps_its_promises_or_refuses(sizes, participants, scheme, seed):
    classes, train_counts, test_counts = sizes
    train_y, test_y = np.repeat(np.arange(classes), train_counts), np.repeat(np.arange(classes), test_counts)
    try:
        parts = partition(train_y, test_y, classes, participants, scheme, np.random.default_rng(seed))
    except DataError:
        return
    check_promises(train_y, test_y, classes, participants, parts)
    train = counts(train_y, parts.train, classes)
    if scheme.startswith("shards"):
        held = train > 0
        assert (held.sum(axis=1) == int(scheme[7:])).all()
        spread = held.sum(axis=0)
        roomy = np.array(train_counts) > spread.max()
        assert not roomy.any() or spread[roomy].max() - spread[roomy].min() <= 1
    else:
        assert parts.left_out[0] < participants
    if scheme == "iid":
        assert np.abs(train - np.array(train_counts) * len(parts.train[0]) / len(train_y)).max() < 1


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 12), st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**32))
def test_balanced_data_is_never_refused_while_there_is_enough(classes, participants, each, seed):
    train_y, test_y = np.arange(classes * 60) % classes, np.arange(classes * 30) % classes
    each = min(each, classes)
    parts = partition(train_y, test_y, classes, participants, f"shards:{each}", np.random.default_rng(seed))
    check_promises(train_y, test_y, classes, participants, parts)
    if participants * each % classes == 0:
        assert max(parts.left_out) < participants


@pytest.mark.parametrize("scheme", ["iid", "dirichlet:0.1", "dirichlet:10", "shards:2"])
def test_a_thousand_participants(scheme):
    parts = partition(CIFAR_TRAIN, CIFAR_TEST, 10, 1000, scheme, np.random.default_rng(0))
    check_promises(CIFAR_TRAIN, CIFAR_TEST, 10, 1000, parts)
    assert parts.left_out == (0, 0)


def test_parse_partition():
    assert parse_partition("iid") == ("iid", None)
    assert parse_partition("dirichlet:0.5") == ("dirichlet", 0.5)
    assert parse_partition("shards:3") == ("shards", 3)


@pytest.mark.parametrize(
    "scheme",
    [
        "",
        "IID",
        "iid:1",
        "iid:",
        "dirichlet",
        "dirichlet:",
        "dirichlet:0",
        "dirichlet:-1",
        "dirichlet:nan",
        "dirichlet:inf",
        "dirichlet:x",
        "shards",
        "shards:0",
        "shards:-2",
        "shards:1.5",
        "shards:two",
        ":2",
    ],
)
def test_unknown_schemes_are_refused_with_the_known_ones(scheme):
    with pytest.raises(DataError, match=r"iid, dirichlet:ALPHA .* shards:"):
        parse_partition(scheme)


@pytest.mark.parametrize(
    ("train", "test", "participants", "scheme", "said"),
    [
        ([0, 1] * 5, [0, 1] * 5, 11, "iid", "11 participants cannot share 10 training and 10 test"),
        ([0, 1] * 5, [0, 1], 3, "iid", "2 test samples"),
        ([0, 1] * 5, [], 1, "iid", "0 test samples"),
        ([0, 1] * 5, [0, 1] * 5, 0, "iid", "0 participants"),
        ([0, 1] * 5, [0, 1] * 5, 2, "shards:3", "shards:3 of 2 classes"),
        ([0, 1] * 5, [0, 1] * 5, 8, "shards:2", "use fewer"),
        ([0, 1] * 5, [0] * 5, 2, "shards:1", "no test samples"),
        ([0, 2], [0, 1], 1, "iid", "expected 0 to 1"),
        ([0, -1], [0, 1], 1, "iid", "labels run from -1"),
        ([0.5, 1], [0, 1], 1, "iid", "whole numbers"),
    ],
)
def test_what_cannot_be_divided_is_refused(train, test, participants, scheme, said):
    with pytest.raises(DataError, match=said):
        partition(np.array(train), np.array(test, np.int64), 2, participants, scheme, np.random.default_rng(0))


@pytest.mark.parametrize(("each", "new", "share"), [(5, 2, 2), (5, 4, 2), (2, 3, 1), (4, 1, 1)])
def test_new_classes_are_kept_for_those_who_are_held_out(each: int, new: int, share: int) -> None:
    labels = np.arange(6000, dtype=np.int64) % 10
    parts = partition(
        labels, labels[:1200], 10, 20, f"shards:{each}", np.random.default_rng(0), held_out=4, new_classes=new
    )
    seen = [set(labels[part].tolist()) for part in parts.train]
    assert all(len(classes) == each for classes in seen)
    assert all(max(classes) < 10 - new for classes in seen[:16])
    assert [len([k for k in classes if k >= 10 - new]) for classes in seen[16:]] == [share] * 4
    assert len({len(part) for part in parts.train}) == 1
    for train, test in zip(parts.train, parts.test, strict=True):
        assert set(labels[test].tolist()) == set(labels[train].tolist())


@pytest.mark.parametrize(
    ("scheme", "held_out", "new"),
    [("iid", 2, 2), ("dirichlet:0.5", 2, 1), ("shards:2", 0, 2), ("shards:1", 2, 2), ("shards:5", 2, 6)],
)
def test_new_classes_that_nobody_could_have_are_refused(scheme: str, held_out: int, new: int) -> None:
    labels = np.arange(400, dtype=np.int64) % 10
    with pytest.raises(DataError, match=f"data.new_classes is {new}"):
        partition(labels, labels, 10, 8, scheme, np.random.default_rng(0), held_out, new)
