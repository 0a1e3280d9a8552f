import numpy as np
import pytest

from edgemeta.fed.aggregate import BLOCK, weighted_mean

pytestmark = pytest.mark.board


def test_weighted_mean_is_fedavgs_formula_by_hand():
    # n = 10 + 30: 10/40 * (4, 0) + 30/40 * (8, -4) = (1 + 6, 0 - 3)
    updates = [(np.array([4, 0], np.float32), 10), (np.array([8, -4], np.float32), 30)]
    mean = weighted_mean(updates, 2)
    assert mean.tolist() == [7.0, -3.0]
    assert mean.dtype == np.float32


def test_a_large_weight_does_not_swallow_a_small_update():
    # In float32, 2**24 + 1 is 2**24; the sum of 2**24 and 1 must not lose the 1.
    updates = [(np.array([1.0], np.float32), 2**24), (np.array([-1.0], np.float32), 2**24), (np.ones(1, np.float32), 1)]
    assert weighted_mean(updates, 1)[0] == pytest.approx(1 / (2**25 + 1), rel=1e-6)


def test_the_mean_covers_vectors_of_many_blocks():
    size = 2 * BLOCK + 7
    one = np.arange(size, dtype=np.float32)
    assert np.array_equal(weighted_mean(iter([(one, 1), (3 * one, 1)]), size), 2 * one)
