"""Flower's own strategies and mods around our ClientApp, in one process: what combines, and to which result."""

from functools import partial

import numpy as np
import pytest
from federations import needs_flower
from runs import TINY

import edgemeta
from edgemeta.config import config_from, to_toml
from edgemeta.errors import ConfigError

pytestmark = [needs_flower, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # what Flower itself imports

RUN = TINY | {
    "data": TINY["data"] | {"held_out": 0, "participants": 3, "partition": "iid"},
    "server": {"clip": "off"},
    "evaluation": {"every": 2, "support": 8},
}


@pytest.fixture
def start(tmp_path):
    """Runs settings by a strategy, and returns its result."""

    def started(strategy, settings, rounds=4, **options):
        from ingrid import InProcess

        (tmp_path / "run.toml").write_text(to_toml(config_from(settings)))
        arrays, said = edgemeta.flower.initial(tmp_path / "run.toml")
        grid = InProcess({10 + k: {"partition-id": k} for k in range(3)}, **options)
        return strategy.start(grid, arrays, rounds, train_config=said, evaluate_config=said)

    return started


def theta_of(result):
    return result.arrays["theta"].numpy()


def of(name, **settings):
    from flwr.serverapp import strategy

    return getattr(strategy, name)(min_available_nodes=3, **settings)


def test_fedavg_of_flowers_has_the_simulations_model_to_rounding(start):
    result, expected = start(of("FedAvg"), RUN), edgemeta.simulate(RUN)
    np.testing.assert_allclose(theta_of(result), expected.model.theta, rtol=0, atol=1e-6)
    scores = expected.history[-1]["evaluation"]
    for when in ("before", "after"):
        for metric in ("accuracy", "loss"):
            ours = result.evaluate_metrics_clientapp[4][f"{metric}-{when}"]
            assert ours == pytest.approx(scores[when][metric]["mean"], abs=1e-4)


def test_fedmedian_takes_the_median_of_what_participants_come_to(start):
    one = RUN | {"phases": [RUN["phases"][0] | {"rounds": 1}]}
    median = theta_of(start(of("FedMedian"), one, rounds=1))
    each = [alone(one, k) for k in range(3)]
    np.testing.assert_allclose(median, np.median(each, axis=0), rtol=0, atol=1e-6)


def alone(settings, k):
    """Return the parameters to which participant k comes in a round from the start."""
    from edgemeta import api
    from edgemeta.fed.client import client_update
    from edgemeta.fed.streams import Stream, generator

    prepared = api.prepare(config_from(settings))
    theta, recipe = prepared.network.init(settings["seed"]), prepared.config.phases[0]
    draw = partial(generator, settings["seed"], Stream.TRAINING, 0, 1, k)
    data = prepared.participants[k].train
    return theta + client_update(prepared.network, recipe, {"theta": theta}, {}, data, draw).shared["theta"]


def test_krum_takes_one_of_them(start):
    one = RUN | {"phases": [RUN["phases"][0] | {"rounds": 1}]}
    taken = theta_of(start(of("Krum", num_malicious_nodes=0), one, rounds=1))
    assert any(np.allclose(taken, alone(one, k), rtol=0, atol=1e-6) for k in range(3))


def test_dp_wrappers_without_noise_and_with_a_wide_clip_change_nothing(start):
    from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
    from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping as AtNodes
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as AtServer

    plain = theta_of(start(of("FedAvg"), RUN))
    for wrapper, mods in ((AtServer, []), (AtNodes, [fixedclipping_mod])):
        wrapped = wrapper(of("FedAvg"), noise_multiplier=0.0, clipping_norm=1e6, num_sampled_clients=3)
        np.testing.assert_allclose(theta_of(start(wrapped, RUN, mods=mods)), plain, rtol=0, atol=1e-5)
    quiet = LocalDpMod(clipping_norm=1e6, sensitivity=1.0, epsilon=1e9, delta=1e-5)
    np.testing.assert_allclose(theta_of(start(of("FedAvg"), RUN, mods=[quiet])), plain, rtol=0, atol=1e-5)


def test_own_classes_are_averaged_by_name_without_a_score_before_adaptation(start):
    own = RUN | {
        "model": {"name": "mlp", "classes": "own"},
        "phases": [{"algorithm": "protonet", "rounds": 2, "local_steps": 2, "batch_size": 8}],
    }
    result, expected = start(of("FedAvg"), own, rounds=2), edgemeta.simulate(own)
    np.testing.assert_allclose(theta_of(result), expected.model.theta, rtol=0, atol=1e-6)
    assert {*result.evaluate_metrics_clientapp[2]} == {"accuracy-after", "loss-after"}


def test_a_learner_that_sends_more_than_theta_is_refused(start):
    with pytest.raises(
        ConfigError, match=r"'scaffold' sends .* beside theta, and a strategy of Flower's averages whole"
    ):
        start(of("FedAvg"), RUN | {"phases": [{"algorithm": "scaffold", "rounds": 1}]})
