"""N-way K-shot episodes: drawn as defined, and scored by whatever learns from a support set."""

import numpy as np
import pytest

import edgemeta
from edgemeta.config import EvaluationConfig
from edgemeta.data import from_arrays
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.messages import admit_evaluation, encode_evaluation
from edgemeta.fed.participants import Participant, check_episodes
from edgemeta.fed.refusal import Refused
from edgemeta.fed.scores import combine
from edgemeta.meta import Samples, adapt, evaluate
from edgemeta.meta.episodes import draw_episode, score_episodes, usable_classes
from edgemeta.nn import build

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


def settings(**changes):
    return EvaluationConfig(
        **({"episodes": 4, "ways": 2, "shots": (1, 2), "adapt_steps": 3, "adapt_lr": 0.2} | changes)
    )


def pictures(labels):
    rng = np.random.default_rng(3)
    return Samples((rng.random((len(labels), 6)) + labels[:, np.newaxis]).astype(np.float32), labels)


def scored(few, network):
    theta = network.init(0)
    return evaluate(network, theta, pictures(TRAIN), pictures(TEST), few, 4, np.random.default_rng(5))


@pytest.mark.parametrize("lr", [0.2, 1e-6])  # an unadapted head prefers outputs that are none of the episode's
def test_a_model_is_adapted_to_each_episode_and_answers_with_its_classes(lr):
    network = build("mlp", (6,), 10)
    found = scored(settings(adapt_lr=lr), network)
    plain = scored(settings(episodes=0, adapt_lr=lr), network)
    assert {key: found[key] for key in plain} == plain  # what was scored before has the same draws
    assert [(one["ways"], one["shots"]) for one in found["episodes"]] == [(2, 1), (2, 2)]

    rng = np.random.default_rng(5)
    evaluate(network, network.init(0), pictures(TRAIN), pictures(TEST), settings(episodes=0, adapt_lr=lr), 4, rng)
    shares = []
    for _ in range(4):  # by hand, from the same draws on
        support, query = draw_episode(pictures(TRAIN), pictures(TEST), 2, 1, rng)
        personal = adapt(network, network.init(0), support, steps=3, lr=lr, batch_size=4, rng=rng)
        answers = network.forward(personal, query.x)[:, :2].argmax(axis=1)
        shares.append(np.mean(answers == query.y))
    assert found["episodes"][0]["accuracy"] == pytest.approx(np.mean(shares))
    assert set(shares) != {1.0}


def test_a_participant_with_too_few_classes_says_so():
    found = scored(settings(shots=(1, 4)), build("mlp", (6,), 10))
    assert found["episodes"][0]["accuracy"] is not None
    assert found["episodes"][1]["accuracy"] is None  # one class has four training samples


def test_a_message_of_episodes_is_checked():
    few = settings()
    found = scored(few, build("mlp", (6,), 10))
    admitted = admit_evaluation(encode_evaluation(found), few, classifies=True)
    assert admitted["episodes"] == found["episodes"]
    for wrong in ([], [{"accuracy": 0.5}], [{"accuracy": 0.5}, {"accuracy": 1.5}], [{"accuracy": 0.5}, {}], None):
        with pytest.raises(Refused):
            admit_evaluation(encode_evaluation(found | {"episodes": wrong}), few, classifies=True)
    assert "episodes" not in admit_evaluation(encode_evaluation(found), settings(episodes=0), classifies=True)


def test_over_participants_those_without_classes_enough_do_not_count():
    base = {"samples": 5, "before": {"loss": 1.0}, "after": {"loss": 1.0}, "grid": []}
    people = [
        base
        | {
            "samples": 100,
            "episodes": [{"ways": 2, "shots": 1, "accuracy": 0.5}, {"ways": 2, "shots": 5, "accuracy": None}],
        },
        base | {"episodes": [{"ways": 2, "shots": 1, "accuracy": 0.9}, {"ways": 2, "shots": 5, "accuracy": None}]},
        base | {"episodes": [{"ways": 2, "shots": 1, "accuracy": None}, {"ways": 2, "shots": 5, "accuracy": None}]},
    ]
    one, five = combine(people)["episodes"]
    assert (one["participants"], one["accuracy"]["mean"], one["accuracy"]["p50"]) == (2, pytest.approx(0.7), 0.7)
    assert (five["participants"], five["accuracy"]) == (0, None)


def test_one_participant_with_classes_enough_is_enough():
    def participant(*labels):
        data = from_arrays(np.zeros((len(labels), 2), np.float32), np.array(labels), ["a", "b", "c"])
        return Participant(data, data)

    check_episodes([participant(0, 1), participant(0, 1, 2)], settings(ways=3, shots=(1,)))
    with pytest.raises(DataError, match="no participant has 3 classes"):
        check_episodes([participant(0, 1), participant(0, 1, 0)], settings(ways=3, shots=(1,)))


def test_a_run_of_episodes_and_one_that_nobody_can_do():
    config = {
        "model": {"name": "mlp"},
        "data": {"source": "synthetic:samples=200,size=8", "participants": 3, "held_out": 1, "partition": "shards:4"},
        "phases": [{"rounds": 1, "local_steps": 2}],
        "evaluation": {"episodes": 3, "ways": 4, "shots": [2]},
    }
    summary = edgemeta.simulate(config).summary
    for key, count in (("evaluation", 2), ("evaluation_new", 1)):
        (few,) = summary[key]["episodes"]
        assert (few["ways"], few["shots"], few["participants"]) == (4, 2, count)
        assert 0 < few["accuracy"]["mean"] <= 1
    config["evaluation"]["ways"] = 5
    with pytest.raises(DataError, match="no participant has 5 classes with 2 training samples"):
        edgemeta.simulate(config)
    config["evaluation"]["ways"] = 11
    with pytest.raises(ConfigError, match=r"evaluation\.ways is 11, and there are 10 classes"):
        edgemeta.simulate(config)
    config["evaluation"]["shots"] = [0]
    with pytest.raises(ConfigError, match=r"evaluation\.shots is \[0\]"):
        edgemeta.simulate(config)


def test_an_embedding_makes_its_classes_from_each_episode():
    """An untrained embedding of far-apart classes, with as many outputs as an episode has ways: 1 of 5 is chance."""
    labels = np.arange(120, dtype=np.int64) % 8
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((8, 12))
    x = (centres[labels] + rng.standard_normal((120, 12))).astype(np.float32)
    network = build("mlp", (12,), 0, "prototypes")
    few = EvaluationConfig(episodes=30, ways=5, shots=(1, 5))
    train, test = Samples(x[:80], labels[:80]), Samples(x[80:], labels[80:])
    found = evaluate(network, network.init(0), train, test, few, 32, np.random.default_rng(0))
    one, five = (task["accuracy"] for task in found["episodes"])
    assert 0.8 < one < five <= 1
    flat = evaluate(network, np.zeros_like(network.init(0)), train, test, few, 32, np.random.default_rng(0))
    assert flat["episodes"][0]["accuracy"] == pytest.approx(0.2, abs=0.02)
