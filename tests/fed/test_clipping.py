"""How far one update may move the model, worked out by hand."""

import math

import numpy as np
import pytest

from edgemeta.fed.clipping import BLOCK, limits, norm, scales, together
from edgemeta.fed.standing import Standing, weights

pytestmark = pytest.mark.board


def test_a_norm_is_a_length_over_all_blocks_and_shows_what_is_not_finite():
    assert norm(np.array([3, 4], np.float32)) == 5
    long = np.zeros(2 * BLOCK + 1, np.float32)
    long[[0, BLOCK, 2 * BLOCK]] = [1, 2, 2]
    assert norm(long) == 3
    assert norm(np.full(4, 3e38, np.float32)) == pytest.approx(2 * 3e38, rel=1e-6)  # no square overflows
    for bad in (np.nan, np.inf, -np.inf):
        long[BLOCK] = bad
        assert not math.isfinite(norm(long))


def test_the_limit_is_so_many_times_the_median_of_what_is_known():
    these = together([{"theta": 2.0}, {"theta": 100.0}])
    assert these == {"theta": [2.0, 100.0]}
    assert limits([], these, 10.0) == {}  # two norms: nobody can say which one is usual
    assert limits([{"theta": [1.0]}], these, 10.0) == {"theta": 20.0}  # the median of 1, 2 and 100
    assert limits([{"theta": [1.0, 1.0, 1.0]}], these, 3.0) == {"theta": 3.0}  # of 1, 1, 1, 2 and 100
    assert limits([{"theta": [1.0]}], these, "off") == {}


def test_each_vector_has_a_limit_of_its_own():
    known = [{"theta": [1.0, 1.0, 1.0], "count": [50.0]}]
    most = limits(known, together([{"theta": 4.0, "count": 60.0}]), 2.0)
    assert most == {"theta": 2.0}
    assert scales({"theta": 4.0, "count": 60.0}, most) == {"theta": 0.5}
    assert scales({"theta": 2.0, "count": 60.0}, most) == {}


def test_three_strikes_in_a_row():
    standing = Standing({"1": 2, "4": 3}, {})
    assert standing.held == {4}
    standing.strikes = standing.after(good=[2], bad=[1])
    assert standing.held == {1, 4}
    standing.strikes = standing.after(good=[1], bad=[])
    assert standing.held == {1, 4}  # who is held stays so, until somebody releases it
    assert Standing({"1": 2}, {}).after(good=[1], bad=[]) == {}


def test_what_a_device_says_of_its_own_data_weighs_ten_times_the_usual_at_most():
    samples = {0: 10, 1: 20, 2: 10**9}
    assert weights(samples, own=[0, 1, 2]) == {0: 10, 1: 20, 2: 200}
    assert weights(samples, own=[0, 1]) == samples
