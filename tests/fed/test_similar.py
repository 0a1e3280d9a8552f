"""Cohorts of participants whose updates point the same way: the sketches, the groups, the draw, and what is kept."""

import numpy as np
import pytest

from edgemeta.config import config_from
from edgemeta.errors import ConfigError
from edgemeta.fed.plan import resolve
from edgemeta.fed.selection import similar
from edgemeta.fed.similar import grouped, remembered, sketch
from edgemeta.nn import Dense, Model

pytestmark = pytest.mark.board

NETWORK = Model([Dense(2)], (3,))


def directions(*vectors):
    """Return vectors of two numbers at length 1, in 64."""
    return np.stack([np.pad(np.array(v, np.float64) / np.hypot(*v), (0, 62)) for v in vectors])


def test_a_sketch_is_the_matrix_of_signs_times_the_delta_and_keeps_angles():
    """Beside a plain matrix with one sign in each column, made of the same bytes; and two blocks are as one."""
    size = (1 << 16) + 1000
    places = np.frombuffer(np.random.default_rng(7).bytes(1 << 16), np.uint8)
    few = np.linspace(-1, 1, 500).astype(np.float32)
    matrix = np.zeros((64, 500))
    for column, place in enumerate(places[:500] % 128):
        matrix[place % 64, column] = 1 if place < 64 else -1
    plain = matrix @ few
    np.testing.assert_allclose(sketch(few, 500, np.random.default_rng(7)), plain / np.linalg.norm(plain), atol=1e-6)

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size)).astype(np.float32)
    mixed = (0.6 * a + 0.8 * b).astype(np.float32)  # the cosine with a is 0.6, as a and b are at right angles
    cosines = []
    for seed in range(200):
        of_a, of_mixed = (sketch(delta, size, np.random.default_rng(seed)) for delta in (a, mixed))
        assert np.linalg.norm(of_a) == pytest.approx(1, abs=1e-6)
        cosines.append(of_a @ of_mixed)
    assert np.mean(cosines) == pytest.approx(0.6, abs=0.03)  # one has a deviation of about .64 / 8
    assert not sketch(np.zeros(size, np.float32), size, np.random.default_rng(0)).any()


def test_what_is_kept_is_the_mean_of_the_known_and_the_new_direction_at_length_one():
    east, north = np.eye(64, dtype=np.float32)[:2]
    kept = remembered({1: east, 2: east}, {2: north, 3: north})
    assert kept[1].tolist() == east.tolist()
    np.testing.assert_allclose(kept[2][:2], [0.5**0.5, 0.5**0.5], atol=1e-7)
    assert kept[3].tolist() == north.tolist()
    assert all(vector.dtype == np.float32 for vector in kept.values())


@pytest.mark.parametrize(("groups", "noise"), [(2, 1.5), (4, 1.0)])
def test_planted_groups_are_found_whatever_they_have_in_common(groups, noise):
    """Two of much noise, which first centres alone do not find, and four, which not every try finds."""
    rng = np.random.default_rng(0)
    mixed = 4 * rng.standard_normal(64) + np.repeat(rng.standard_normal((groups, 64)), 10, axis=0)
    mixed += noise * rng.standard_normal(mixed.shape)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    order = rng.permutation(len(mixed))
    found = grouped(mixed[order], groups, np.random.default_rng(0))
    kinds = [set(found[order // 10 == kind].tolist()) for kind in range(groups)]
    assert sorted(map(list, kinds)) == [[k] for k in range(groups)]
    assert grouped(mixed[order], groups, np.random.default_rng(0)).tolist() == found.tolist()


def test_directions_that_are_all_the_same_are_taken():
    assert len(grouped(directions(*[(1, 0)] * 3), 3, np.random.default_rng(0))) == 3


SKETCHES = dict(enumerate(directions((1, 0), (1, 0.1), (1, -0.1), (0, 1), (0.1, 1)).astype(np.float32)))  # 0 1 2 | 3 4


@pytest.mark.parametrize(
    ("drawn", "least", "chosen"),
    [
        ([1, 3, 0, 4, 2], 1, [1, 0, 2]),
        ([4, 0, 3, 1, 2], 1, [4, 3]),
        ([4, 0, 3, 1, 2], 4, [4, 3, 0, 1]),  # a round needs four: the next ones fill up
        ([9, 3, 0, 8, 4, 2, 1], 1, [9, 3, 8, 4]),  # nobody knows yet what 8 and 9 are like
        ([9, 2, 8], 1, [9, 2, 8]),  # of two groups one is known: all are asked
        ([0, 1, 2], 1, None),  # of one kind alone, and told apart all the same
    ],
)
def test_those_like_the_first_one_drawn_are_asked(drawn, least, chosen):
    found = similar(drawn, least, SKETCHES, 2, np.random.default_rng(0))
    if chosen is None:
        assert found[0] == drawn[0]
        assert 1 <= len(found) < 3
    else:
        assert list(found) == chosen


def test_everyone_is_asked_equally_often_whatever_the_size_of_its_group():
    """A group of three has three fifths of the turns, and one of them is asked each time: a fifth for everyone."""
    rng, asked = np.random.default_rng(0), np.zeros(5)
    for _ in range(150):
        asked[similar(rng.permutation(5).tolist(), 1, SKETCHES, 2, rng)[0]] += 1
    np.testing.assert_allclose(asked / 150, 0.2, atol=0.12)  # a deviation is .033


def resolved(participants=4, **server):
    data = {"participants": participants}
    return resolve(config_from({"data": data, "server": server}), (3,), ("a", "b"), NETWORK)


def test_two_groups_unless_told_otherwise():
    assert resolved(selection="similar").server.groups == 2
    assert resolved().server.groups is None
    assert resolved(participants=0, selection="similar", groups=3).server.groups == 3  # as many as join: who knows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection": "similar", "groups": 0}, r"server\.groups is 0: expected at least 2"),
        ({"selection": "similar", "groups": 1}, r"server\.groups is 1: expected at least 2"),
        ({"selection": "similar", "groups": float("nan")}, r"server\.groups is nan: expected a whole number"),
        (
            {"selection": "similar", "groups": 5},
            r"server\.groups is 5, and 4 of the participants train: give 4 or less",
        ),
        ({"participants": 1, "selection": "similar"}, "groups is 2, and 1 of .* train: leave server.selection out"),
        ({"groups": 2}, r"server\.groups is for server\.selection = 'similar': leave it out, or give that"),
        ({"selection": "similiar"}, "unknown selection 'similiar': did you mean 'similar'?"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolved(**settings)
