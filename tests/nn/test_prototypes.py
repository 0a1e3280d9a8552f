"""Prototypes: the loss by hand, against an implementation with loops, and through a network in float64."""

import math
import tracemalloc

import numpy as np
import pytest
from gradients import Array, check_gradient

from edgemeta.errors import InputError
from edgemeta.nn import Dense, Model, ReLU, build
from edgemeta.nn.prototypes import fitted_scale, leave_one_out, leave_one_out_as_it_is, means

pytestmark = pytest.mark.board


def by_loops(z: Array, y: Array, scale: float) -> float:
    """Return the loss from its definition: means are taken anew for each sample, without it."""
    spread = float(np.mean([np.sum((row - z.mean(axis=0)) ** 2) for row in z]))
    losses = []
    for i in range(len(z)):
        powers = {}
        for k in set(y.tolist()):
            others = [z[j] for j in range(len(z)) if y[j] == k and j != i]
            if others:
                powers[k] = math.exp(-scale * float(np.sum((z[i] - np.mean(others, axis=0)) ** 2)) / spread)
        if y[i] in powers:
            losses.append(-math.log(powers[y[i]] / sum(powers.values())))
    return float(np.mean(losses))


def test_by_hand() -> None:
    z, y = np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([7, 7, 1, 1], np.int64)
    # 0 is 4 from the square of its way to 2, and 25 from that to 5, the mean of the others; 2 is 4, and 9; 4 and 6 are
    # their mirror images. The spread, around 3, is (9 + 1 + 1 + 9) / 4 = 5.
    expected = (math.log1p(math.exp(-21 * 0.2)) + math.log1p(math.exp(-5 * 0.2))) / 2
    assert leave_one_out_as_it_is(z, y, 0.2)[0] == pytest.approx(expected, rel=1e-12)
    assert leave_one_out(z, y, 1.0)[0] == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_its_definition_with_singles_too() -> None:
    rng = np.random.default_rng(0)
    y = np.array([3, 3, 3, 0, 0, 9, 5, 5, 5, 5], np.int64)  # 9 is alone: no query, but in the way of the others
    z = rng.standard_normal((10, 4))
    for scale in (0.5, 5.0):
        assert leave_one_out(z, y, scale)[0] == pytest.approx(by_loops(z, y, scale), rel=1e-10)
    alone, others = y == 9, y != 9
    assert leave_one_out(z[others], y[others], 5.0)[0] < by_loops(z, y, 5.0)
    assert np.abs(leave_one_out(z, y, 5.0)[1][alone]).max() > 1e-3  # the others push it away


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0, 1], [4, 4, 3, 3, 2, 2, 1, 1]])
def test_the_gradient_is_exact_through_means_and_spread(labels: list[int]) -> None:
    rng, y = np.random.default_rng(1), np.array(labels, np.int64)
    z = rng.standard_normal((8, 3))
    check_gradient(lambda point: leave_one_out(point, y, 2.0)[0], leave_one_out(z, y, 2.0)[1], z, rng)
    check_gradient(lambda p: leave_one_out_as_it_is(p, y, 0.7)[0], leave_one_out_as_it_is(z, y, 0.7)[1], z, rng)


def test_the_gradient_through_a_network() -> None:
    net, rng = Model([Dense(6), ReLU(), Dense(4)], (5,), "prototypes"), np.random.default_rng(2)
    theta, x = rng.standard_normal(net.layout.size), rng.standard_normal((9, 5))
    y = np.arange(9, dtype=np.int64) % 3
    check_gradient(lambda t: net.loss_and_grad(t, x, y)[0], net.loss_and_grad(theta, x, y)[1], theta, rng)


def test_ten_thousand_classes_take_no_more_memory_than_their_means() -> None:
    y = np.arange(20_000, dtype=np.int64) % 10_000
    z = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    tracemalloc.start()
    try:
        scale = fitted_scale(z, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert scale > 0
    assert peak < 50e6  # all distances are 800 MB
    present, centres, places = means(z, y)
    assert (len(present), centres.shape) == (10_000, (10_000, 16))
    np.testing.assert_allclose(centres[7], (z[7] + z[10_007]) / 2, rtol=1e-6, atol=1e-7)
    assert places.tolist() == y.tolist()


def test_neither_scale_nor_place_of_an_embedding_matter() -> None:
    rng, y = np.random.default_rng(3), np.array([0, 0, 1, 1, 2, 2], np.int64)
    z = rng.standard_normal((6, 3))
    loss, dz = leave_one_out(z, y)
    far, dfar = leave_one_out(1000 * z + 5, y)
    assert far == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(dfar, dz / 1000, rtol=1e-6, atol=1e-12)  # the further apart, the shorter the steps


@pytest.mark.parametrize("labels", [[4, 4, 4], [0, 1, 2]], ids=["one class", "one sample of each"])
def test_a_batch_with_nothing_to_tell_apart_teaches_nothing(labels: list[int]) -> None:
    loss, dz = leave_one_out(np.random.default_rng(4).standard_normal((3, 2)), np.array(labels, np.int64))
    assert (loss, np.abs(dz).max()) == (0.0, 0.0)


def test_embeddings_that_are_all_alike_have_no_gradient_and_a_loss_of_chance() -> None:
    loss, dz = leave_one_out(np.ones((4, 2)), np.array([0, 0, 1, 1], np.int64))
    assert loss == pytest.approx(math.log(2))
    assert not dz.any()
    assert leave_one_out(np.ones((1, 2)), np.array([0], np.int64))[0] == 0.0


def test_labels_that_do_not_fit_are_refused() -> None:
    for labels in ([0, 1], [[0], [1], [2]], [0.0, 1.0, 2.0]):
        with pytest.raises(InputError, match="expected 3 whole numbers"):
            leave_one_out(np.zeros((3, 2)), np.array(labels))


def test_named_models_end_in_their_embedding() -> None:
    widths = {name: build(name, (32, 32, 3), 0).outputs for name in ("cnn", "cnn-small", "conv4", "mlp")}
    assert widths == {"cnn": 512, "cnn-small": 128, "conv4": 128, "mlp": 200}
    assert build("conv4", (32, 32, 3), 0).layout.size == 28_640
    for name in widths:
        body, whole = build(name, (32, 32, 3), 0).layout, build(name, (32, 32, 3), 10).layout
        assert body.entries == whole.entries[:-2]
    net = build("mlp", (4,), 0)
    outputs = net.forward(net.init(0), np.ones((1, 4), np.float32))
    assert outputs.min() < 0 < outputs.max()  # no ReLU at its end
