"""Who has which data in an experiment."""

from dataclasses import replace

import numpy as np
import pytest

from edgemeta.config import DataConfig, RunConfig
from edgemeta.data import Split, from_arrays
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.participants import divide
from edgemeta.fed.plan import Plan, resolve


def numbered(count, start, classes=5):
    """Samples that can be told apart: a sample's three numbers are its own number."""
    x = np.arange(start, start + count, dtype=np.float32)[:, np.newaxis].repeat(3, axis=1)
    return from_arrays(x, np.arange(count, dtype=np.int64) % classes, [f"c{i}" for i in range(classes)])


SPLIT = Split(numbered(200, 0), numbered(50, 1000))


def numbers(samples):
    return set(samples.x[:, 0].astype(int).tolist())


def test_everyone_has_an_equal_part_and_nobody_anothers():
    participants, left_out = divide(SPLIT, DataConfig(participants=5, partition="iid"), 0)
    assert left_out == (0, 0)
    assert [(p.train.size, p.test.size) for p in participants] == [(40, 10)] * 5
    assert set().union(*(numbers(p.train) for p in participants)) == set(range(200))
    assert set().union(*(numbers(p.test) for p in participants)) == set(range(1000, 1050))


def test_validation_scores_training_data_that_nobody_trains_on():
    participants, _ = divide(SPLIT, DataConfig(participants=5, partition="iid", validation=0.25), 0)
    for p in participants:
        assert (p.train.size, p.test.size) == (30, 10)
        assert max(numbers(p.test)) < 1000  # no test sample is looked at
        assert not numbers(p.train) & numbers(p.test)


def test_noise_spoils_the_training_data_of_some():
    data = DataConfig(participants=5, partition="iid", label_noise=0.5, noisy_participants=0.4)
    clean, _ = divide(SPLIT, replace(data, label_noise=0.0), 0)
    noisy, _ = divide(SPLIT, data, 0)
    changed = [int((a.train.y != b.train.y).sum()) for a, b in zip(noisy, clean, strict=True)]
    assert sorted(changed) == [0, 0, 0, 20, 20]  # half of 40 labels, for two of five
    assert all(np.array_equal(a.test.y, b.test.y) for a, b in zip(noisy, clean, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_noise_may_be_kept_from_those_held_out(seed):
    data = DataConfig(participants=5, held_out=2, partition="iid", label_noise=0.5, held_out_noise=False)
    clean, _ = divide(SPLIT, replace(data, label_noise=0.0), seed)
    changed = []
    for share in (1.0, 0.67):
        noisy, _ = divide(SPLIT, replace(data, noisy_participants=share), seed)
        changed.append([int((a.train.y != b.train.y).sum()) for a, b in zip(noisy, clean, strict=True)])
    assert changed[0] == [20, 20, 20, 0, 0]
    assert changed[1][3:] == [0, 0]
    assert sorted(changed[1][:3]) == [0, 20, 20]  # two of the three that train


def test_a_participant_without_test_data_is_refused():
    with pytest.raises(DataError, match="participants"):
        divide(Split(numbered(200, 0), numbered(3, 1000)), DataConfig(participants=5, partition="iid"), 0)


def test_the_plan_counts_rounds_over_phases():
    text = RunConfig()
    config = replace(text, phases=(replace(text.phases[0], rounds=2, lr_decay=0.5), replace(text.phases[1], rounds=3)))
    plan = Plan(config)
    assert [plan.phase_of(r) for r in range(1, 6)] == [0, 0, 1, 1, 1]
    assert [plan.recipe(r).lr for r in range(1, 6)] == [0.02, 0.01, 0.02, 0.02, 0.02]
    assert plan.last_round == 5
    assert [plan.is_evaluated(r) for r in range(6)] == [True, False, False, False, False, True]
    endless = Plan(replace(config, phases=(config.phases[0], replace(config.phases[1], rounds=0))))
    assert endless.last_round is None
    assert endless.phase_of(1000) == 1


def test_a_configuration_that_expects_other_data_is_refused():
    config = RunConfig()
    wrong = replace(config, model=replace(config.model, name="mlp", input_shape=(4,), classes=("a", "b")))
    with pytest.raises(ConfigError, match=r"input_shape is \[4\]: the data has \[3\]; model\.classes"):
        resolve(wrong, (3,), ("a", "c"))
