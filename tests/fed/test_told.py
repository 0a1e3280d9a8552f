"""What devices are told of settings: one of an earlier release takes part in what it knows."""

from dataclasses import dataclass

import pytest

from edgemeta.config import DataConfig, EvaluationConfig, PhaseConfig
from edgemeta.fed.description import Description
from edgemeta.fed.messages import told
from edgemeta.nn import build

RECIPE = {
    *("name", "algorithm", "rounds", "local_steps", "batch_size", "lr", "momentum", "weight_decay", "lr_decay"),
    *("inner_lr", "inner_steps"),
}


@dataclass(frozen=True)
class Phase(PhaseConfig):
    added: int = 3


@dataclass(frozen=True)
class Evaluation(EvaluationConfig):
    added: int = 3


@dataclass(frozen=True)
class Data(DataConfig):
    added: int = 3


@pytest.mark.parametrize("record", [Phase, Evaluation, Data])
def test_a_setting_of_a_later_release_is_told_where_it_is_not_the_default(record):
    assert "added" not in told(record())
    assert told(record(added=4)) == told(record()) | {"added": 4}


def test_those_of_the_first_release_are_told_always():
    assert set(told(PhaseConfig(local_steps=10))) == RECIPE
    assert set(told(PhaseConfig(local_epochs=1))) == RECIPE - {"local_steps"} | {"local_epochs"}
    assert set(told(EvaluationConfig(adapt_steps=5))) == {"every", "adapt_steps", "adapt_lr", "support", "grid"}


def test_a_join_says_no_more_of_the_data_than_an_earlier_device_knows():
    network = build("mlp", (3,), 2)
    first = {"seed", "participants", "held_out", "partition"}
    first |= {"validation", "label_noise", "pixel_noise", "noisy_participants"}
    assert set(Description(Data(), 0, network, ("a", "b"), 1).to_json()["data"]) == first
    assert Description(Data(added=4), 0, network, ("a", "b"), 1).to_json()["data"]["added"] == 4
