"""The server's optimisers, against steps worked out by hand on two numbers."""

import numpy as np
import pytest

from edgemeta.fed.optimizers import OPTIMIZERS
from edgemeta.records import record_from

pytestmark = pytest.mark.board


def steps(name, deltas, **given):
    """Return theta after each delta, from (1, 2)."""
    row = OPTIMIZERS[name]
    settings = record_from(row.settings, given)
    theta = np.array([1, 2], np.float32)
    kept, found = row.init(theta, settings), []
    for delta in deltas:
        before = theta.copy(), {key: vector.copy() for key, vector in kept.items()}
        after, following = row.apply(theta, np.array(delta, np.float32), kept, settings)
        assert np.array_equal(theta, before[0])  # vectors are values
        assert all(np.array_equal(kept[key], before[1][key]) for key in kept)
        assert after.dtype == np.float32
        assert all(vector.dtype == np.float32 for vector in following.values())
        theta, kept = after, following
        found.append(theta.tolist())
    return found


def test_sgd_with_rate_one_is_fedavg():
    assert steps("sgd", [[0.5, -1.0]]) == [[1.5, 1.0]]
    assert steps("sgd", [[0.5, -1.0]], lr=0.5) == [[1.25, 1.5]]


def test_momentum_by_hand():
    # v = (4, -2), then 0.5 (4, -2) + (1, 1) = (3, 0); theta = (1, 2) + 0.5 (4, -2) = (3, 1), then + (1.5, 0)
    assert steps("momentum", [[4, -2], [1, 1]], momentum=0.5, lr=0.5) == [[3, 1], [4.5, 1]]


def test_adam_by_hand():
    # m = 0.5 (4, -2) = (2, -1); v = 0.75 * 4 + 0.25 (16, 4) = (7, 4); sqrt v + tau = (2 + sqrt 7, 4)
    # then m = (1, -0.5) + 0; v = 0.75 (7, 4) = (5.25, 3)
    first = [1 + 3 * 2 / (7**0.5 + 2), 2 - 3 * 1 / (2 + 2)]
    second = [first[0] + 3 * 1 / (5.25**0.5 + 2), first[1] - 3 * 0.5 / (3**0.5 + 2)]
    found = steps("adam", [[4, -2], [0, 0]], lr=3, beta1=0.5, beta2=0.75, tau=2)
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)


def test_yogi_by_hand():
    # v begins at tau² = 4. m = 0.5 (4, -1) = (2, -.5); delta² = (16, 1): above and below v, so v = 4 +- 0.25 delta² =
    # (8, 3.75). Then nobody moves: m = (1, -.25), and v stays, where Adam's would shrink.
    first = [1 + 3 * 2 / (8**0.5 + 2), 2 - 3 * 0.5 / (3.75**0.5 + 2)]
    second = [first[0] + 3 * 1 / (8**0.5 + 2), first[1] - 3 * 0.25 / (3.75**0.5 + 2)]
    found = steps("yogi", [[4, -1], [0, 0]], lr=3, beta1=0.5, beta2=0.75, tau=2)
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)


def test_adagrad_by_hand():
    # v = 1 + (8, 3) = (9, 4), then (25, 4) after (4, 0): steps of 2 sqrt 8 / 4, 2 sqrt 3 / 3, and 2 * 4 / 6
    first = [1 + 2 * 8**0.5 / 4, 2 - 2 * 3**0.5 / 3]
    found = steps("adagrad", [[8**0.5, -(3**0.5)], [4, 0]], lr=2, tau=1)
    np.testing.assert_allclose(found, [first, [first[0] + 8 / 6, first[1]]], rtol=1e-6)


def test_every_row_names_its_paper_and_starts_from_its_defaults():
    for name, row in OPTIMIZERS.items():
        assert "arXiv:" in row.paper
        assert steps(name, [[0, 0]]) == [[1, 2]]  # nobody moved, and nothing has been kept: it stays where it is
