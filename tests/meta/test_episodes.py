"""N-way K-shot episodes: drawn as defined, and scored by whatever learns from a support set."""

import numpy as np
import pytest

from edgemeta.errors import DataError
from edgemeta.meta import Samples
from edgemeta.meta.episodes import draw_episode, score_episodes, usable_classes

# x says which sample it is: training ones count from 0, test ones from 100. Class 7 has four training samples, 3 and 9
# two, 5 one; nobody tests 4.
TRAIN = np.array([7, 3, 7, 9, 5, 7, 3, 9, 7, 4, 4], np.int64)
TEST = np.array([9, 7, 3, 3, 5, 7], np.int64)


def samples():
    train = np.arange(len(TRAIN), dtype=np.float32)[:, np.newaxis]
    test = 100 + np.arange(len(TEST), dtype=np.float32)[:, np.newaxis]
    return Samples(train, TRAIN), Samples(test, TEST)


@pytest.mark.parametrize(("shots", "usable"), [(1, [3, 5, 7, 9]), (2, [3, 7, 9]), (4, [7]), (5, [])])
def test_a_class_needs_its_shots_and_a_test_sample(shots, usable):
    assert usable_classes(TRAIN, TEST, shots).tolist() == usable


def test_an_episode_has_so_many_shots_of_each_class_and_all_its_queries():
    train, test = samples()
    seen = set()
    for seed in range(40):
        support, query = draw_episode(train, test, 2, 2, np.random.default_rng(seed))
        assert support.y.tolist() == [0, 0, 1, 1]
        picked = support.x[:, 0].astype(int)
        assert len(set(picked.tolist())) == 4
        classes = [set(TRAIN[picked[support.y == k]].tolist()) for k in range(2)]
        assert [len(one) for one in classes] == [1, 1]
        for k, one in enumerate(classes):  # the queries with label k are all the test samples of that class
            (label,) = one
            assert sorted(query.x[query.y == k, 0] - 100) == np.flatnonzero(label == TEST).tolist()
        seen.add(tuple(min(one) for one in classes))
        seen.add(tuple(sorted(picked.tolist())))
    assert {(3, 7), (7, 3), (9, 3), (7, 9)} <= seen  # classes in any order, and so numbered at random
    assert len(seen) > 10  # other samples each time


def test_too_few_classes():
    train, test = samples()
    with pytest.raises(DataError, match="3 classes have 2 training samples and a test sample: an episode needs 4"):
        draw_episode(train, test, 4, 2, np.random.default_rng(0))
    scored = score_episodes(fail, train, test, ways=4, shots=2, episodes=3, rng=np.random.default_rng(0))
    assert scored is None


def fail(*_):
    raise AssertionError("nothing is learnt")


def test_scores_are_the_mean_share_of_queries_that_are_right():
    train, test = samples()
    shares = []

    def learn(support, rng):
        def classify(x):
            found = np.zeros((len(x), 2))
            found[:, 1] = 0.5  # always the second class
            return found

        return classify

    def right(seed):
        rng = np.random.default_rng(seed)
        for _ in range(6):
            _, query = draw_episode(train, test, 2, 1, rng)
            shares.append(np.count_nonzero(query.y == 1) / len(query.y))
        return sum(shares) / 6

    scored = score_episodes(learn, train, test, ways=2, shots=1, episodes=6, rng=np.random.default_rng(4))
    assert scored == pytest.approx(right(4))
    assert 0 < scored < 1


def test_nearest_means_of_an_embedding_find_what_is_apart():
    """Prototypes as Snell et al. 2017 define them, on an embedding in which classes are far apart, or all alike."""
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int64) % 6
    x = (10 * y + rng.standard_normal(60))[:, np.newaxis].astype(np.float32)
    train, test = Samples(x[:30], y[:30]), Samples(x[30:], y[30:])

    def prototypes(embed):
        def learn(support, _rng):
            means = np.stack([embed(support.x[support.y == k]).mean(axis=0) for k in range(support.y.max() + 1)])
            return lambda queries: -((embed(queries)[:, np.newaxis] - means) ** 2).sum(axis=2)

        return learn

    def score(embed):
        settings = {"ways": 5, "shots": 1, "episodes": 50, "rng": np.random.default_rng(1)}
        return score_episodes(prototypes(embed), train, test, **settings)

    assert score(lambda x: x) > 0.99
    assert score(lambda x: 0 * x) == pytest.approx(0.2, abs=0.05)  # chance
