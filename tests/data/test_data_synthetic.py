"""The built-in set: what its pictures depend on and what not; and noise."""

import numpy as np
import pytest

from edgemeta.data import add_noise, describe, open_data
from edgemeta.errors import DataError


def test_the_default_set():
    split = open_data("synthetic")
    assert (len(split.train), len(split.test), split.train.shape) == (6000, 1200, (32, 32, 3))
    summary = describe(split)
    assert summary["kind"] == "synthetic"
    assert list(summary["classes"].values()) == [{"train": 600, "test": 120}] * 10
    x, y = split.train.take(np.arange(20)).load()
    assert (x.shape, x.dtype, y.dtype) == ((20, 32, 32, 3), np.uint8, np.int64)


def test_the_spec_s_numbers_are_followed():
    split = open_data("synthetic:samples=85,classes=16,size=17,seed=4")
    assert (len(split.train), len(split.test), len(split.train.classes), split.test.shape) == (85, 17, 16, (17, 17, 3))
    assert set(split.train.labels.tolist()) == set(split.test.labels.tolist()) == set(range(16))
    assert len(split.test.load()[0]) == 17


def test_a_picture_depends_on_nothing_but_its_place_and_the_seed():
    data = open_data("synthetic:size=12", seed=7).train
    x, _ = data.take(np.arange(1000)).load()
    picked = np.array([999, 3, 500, 3])
    assert (data.take(picked).load()[0] == x[picked]).all()
    assert (open_data("synthetic:size=12,seed=7,samples=50").train.load()[0] == x[:50]).all()
    assert (open_data("synthetic:size=12", seed=8).train.take([0]).load()[0] != x[0]).any()
    assert (open_data("synthetic:size=12", seed=7).test.take([0]).load()[0] != x[0]).any()
    assert len({picture.tobytes() for picture in x}) == 1000


def test_participants_have_a_style_of_their_own_in_both_parts():
    split = open_data("synthetic", seed=1)
    plain = split.train.take(np.arange(40))
    styled = [plain.for_participant(k).load()[0] for k in (0, 1, 0)]
    assert (styled[0] == styled[2]).all()
    assert (styled[0] != styled[1]).any()
    assert (styled[0] != plain.load()[0]).any()
    assert (plain.for_participant(1).labels == plain.labels).all()
    # A cast of colour is one camera's: it shows in means over many pictures of training and test data alike.
    for k in (2, 3, 4):
        means = [
            part.take(np.arange(400)).for_participant(k).load()[0].mean((0, 1, 2)) for part in (split.train, split.test)
        ]
        assert np.abs(means[0] - means[1]).max() < 6
    spread = [split.test.take(np.arange(200)).for_participant(k).load()[0].mean((0, 1, 2)) for k in range(6)]
    assert np.std(spread, axis=0).max() > 6


@pytest.mark.parametrize("size", [8, 32, 128])
def test_classes_can_be_told_apart_by_their_shape(size):
    """Without a network: the mean over many pictures of |picture - its median| differs between a disc and a ring."""
    data = open_data(f"synthetic:size={size},classes=2,samples=400").train
    x, y = data.take(np.arange(400 if size < 128 else 60)).load()
    assert x.min() < 30
    assert x.max() > 225
    away = np.abs(x.astype(np.int64) - np.median(x, axis=(1, 2), keepdims=True)).mean((1, 2, 3))
    assert away[y == 0].mean() != pytest.approx(away[y == 1].mean(), rel=0.02)


def test_label_noise_changes_exactly_the_share_asked_for():
    y = np.arange(1000, dtype=np.int64) % 4
    x = np.zeros((1000, 2), np.float32)
    noisy_x, noisy = add_noise(x, y, 4, 0.3, 0.0, np.random.default_rng(0))
    assert (noisy != y).sum() == 300
    assert noisy.dtype == np.int64
    assert (y == np.arange(1000) % 4).all(), "the labels given were written to"
    assert (noisy_x == x).all()
    shifts = np.bincount((noisy - y) % 4, minlength=4)
    assert shifts[0] == 700
    assert shifts[1:].min() > 70  # 100 each, with a sigma of 8


def test_a_wrong_label_is_one_that_the_participant_has_and_the_same_for_own_classes():
    """Two of ten classes, 3 and 8, with the same draws as two classes of one's own, 0 and 1."""
    own = np.arange(200, dtype=np.int64) % 2
    common, x = np.array([3, 8])[own], np.zeros((200, 1), np.uint8)
    noisy = add_noise(x, common, 10, 0.4, 0.0, np.random.default_rng(0))[1]
    assert ((noisy != common).sum(), set(noisy.tolist())) == (80, {3, 8})
    assert noisy.tolist() == np.array([3, 8])[add_noise(x, own, 2, 0.4, 0.0, np.random.default_rng(0))[1]].tolist()


def test_all_labels_may_be_wrong():
    y = np.zeros(50, np.int64)
    assert (add_noise(np.zeros((50, 1), np.uint8), y, 2, 1.0, 0.0, np.random.default_rng(0))[1] == 1).all()
    with pytest.raises(DataError, match="another class"):
        add_noise(np.zeros((50, 1), np.uint8), y, 1, 0.5, 0.0, np.random.default_rng(0))


def test_pixel_noise_has_the_sigma_asked_for_and_stays_in_range():
    x = np.full((600, 8, 8, 1), 128, np.uint8)
    x[300:] = 255
    noisy, y = add_noise(x, np.zeros(600, np.int64), 2, 0.0, 0.1, np.random.default_rng(0))
    assert noisy.dtype == np.uint8
    assert (x[:300] == 128).all()
    assert (x[300:] == 255).all()
    grey = noisy[:300].astype(np.float64)
    assert grey.mean() == pytest.approx(128, abs=1)
    assert grey.std() == pytest.approx(25.5, rel=0.03)
    assert (noisy[300:] == 255).mean() == pytest.approx(0.5, abs=0.03)  # what would be brighter than white is white
    assert (y == 0).all()


def test_floats_are_not_clipped():
    x = np.ones((2000, 5), np.float32)
    noisy, _ = add_noise(x, np.zeros(2000, np.int64), 2, 0.0, 0.5, np.random.default_rng(0))
    assert noisy.dtype == np.float32
    assert noisy.mean() == pytest.approx(1, abs=0.03)
    assert noisy.std() == pytest.approx(0.5, rel=0.03)
