"""The learner of prototypical networks: its step, its batches, and what it says when there is nothing to learn."""

import numpy as np
import pytest

from edgemeta.config import PhaseConfig
from edgemeta.errors import DivergedError
from edgemeta.meta import Samples, begin, take_step
from edgemeta.meta.protonet import by_class
from edgemeta.nn import Dense, Flatten, Model, ReLU, Workspace
from edgemeta.nn.prototypes import leave_one_out

NET = Model([Dense(8), ReLU(), Dense(4)], (3,), "prototypes")


def data(counts: dict[int, int], seed: int = 0) -> Samples:
    y = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    return Samples(np.random.default_rng(seed).standard_normal((len(y), 3)).astype(np.float32), y)


def test_a_step_descends_along_the_leave_one_out_loss_of_its_batch() -> None:
    recipe = PhaseConfig(algorithm="protonet", batch_size=8, lr=0.5, settings={"scale": 2.0})
    samples, state = data({0: 6, 1: 9, 4: 3}), begin(NET, recipe, {"theta": NET.init(0)}, {})
    batch = samples.take(by_class(samples.y, 8, np.random.default_rng(7)))
    loss, slope = NET.loss_and_grad(NET.init(0), *batch, loss=lambda z, y: leave_one_out(z, y, 2.0))
    take_step(NET, recipe, state, samples, np.random.default_rng(7), Workspace())
    np.testing.assert_allclose(state.vectors["theta"], NET.init(0) - np.float32(0.5) * slope, rtol=1e-5, atol=1e-7)
    assert state.loss_sum == loss
    other = NET.loss_and_grad(NET.init(0), *batch)[0]  # the network's own loss has another scale
    assert other != loss


def test_it_learns_to_tell_classes_apart_that_it_has_not_seen() -> None:
    """Classes lie along one hidden direction out of ten; what is learned of some serves others."""

    def drawn(classes: int, seed: int) -> Samples:
        rng = np.random.default_rng(seed)
        y = np.arange(40 * classes, dtype=np.int64) % classes
        x = 2 * rng.standard_normal((len(y), 10))
        x[:, 3] = rng.permutation(classes)[y] * 2.0 + 0.3 * rng.standard_normal(len(y))
        return Samples(x.astype(np.float32), y)

    def right(theta: np.ndarray, samples: Samples) -> float:
        z = net.forward(theta, samples.x)
        half = len(z) // 2
        means = np.stack([z[:half][samples.y[:half] == k].mean(axis=0) for k in np.unique(samples.y)])
        nearest = np.square(z[half:, np.newaxis] - means).sum(axis=2).argmin(axis=1)
        return float((nearest == samples.y[half:]).mean())

    net = Model([Dense(16), ReLU(), Dense(8)], (10,), "prototypes")
    recipe = PhaseConfig(algorithm="protonet", batch_size=32, lr=0.1)
    state = begin(net, recipe, {"theta": net.init(1)}, {})
    for step in range(150):
        take_step(net, recipe, state, drawn(5, step % 10), np.random.default_rng(step), Workspace())
    new = drawn(5, 99)
    assert right(state.vectors["theta"], new) > 0.9 > 0.7 > right(net.init(1), new)


def test_a_batch_has_enough_of_each_of_its_classes() -> None:
    y = np.repeat(np.arange(50, dtype=np.int64), 10)
    seen = set()
    for seed in range(20):
        chosen = by_class(y, 64, np.random.default_rng(seed))
        assert len(set(chosen.tolist())) == 64  # no sample twice
        classes, counts = np.unique(y[chosen], return_counts=True)
        assert (len(classes), set(counts.tolist())) == (16, {4})
        seen |= set(classes.tolist())
    assert seen == set(range(50))


@pytest.mark.parametrize(
    ("counts", "batch", "expected"),
    [
        ({0: 500, 1: 500, 2: 500}, 64, [21, 21, 22]),  # as equal as can be
        ({0: 500, 1: 3, 2: 1}, 64, [1, 3, 22]),  # small classes give what they have
        ({6: 5}, 64, [5]),
        ({0: 9, 1: 9, 2: 9}, 4, [2, 2]),  # two classes at least
    ],
)
def test_batches_of_few_and_of_unequal_classes(counts: dict[int, int], batch: int, expected: list[int]) -> None:
    y = data(counts).y
    sizes = np.unique(y[by_class(y, batch, np.random.default_rng(0))], return_counts=True)[1]
    if counts.get(1) == 3:  # who is drawn first gets the smaller part
        assert sorted(sizes.tolist())[:2] == expected[:2]
        assert max(sizes) in (21, 22)
    else:
        assert sorted(sizes.tolist()) == expected


@pytest.mark.parametrize("counts", [{2: 6}, {0: 1, 1: 1}])
def test_one_class_or_single_samples_change_nothing(counts: dict[int, int]) -> None:
    recipe = PhaseConfig(algorithm="protonet", lr=0.5)
    state = begin(NET, recipe, {"theta": NET.init(0)}, {})
    take_step(NET, recipe, state, data(counts), np.random.default_rng(0), Workspace())
    assert state.vectors["theta"].tobytes() == NET.init(0).tobytes()
    assert state.loss_sum == 0.0


def test_a_network_that_has_died_is_noticed() -> None:
    recipe = PhaseConfig(algorithm="protonet", lr=0.5)
    dead = NET.init(0)
    NET.layout.views(dead)["dense1.bias"][...] = -1e3  # no unit is ever above zero
    state = begin(NET, recipe, {"theta": dead}, {})
    with pytest.raises(DivergedError, match="training has died: the network makes the same of all samples; lower lr"):
        take_step(NET, recipe, state, data({0: 5, 1: 5}), np.random.default_rng(0), Workspace())
    same = Samples(np.ones((10, 3), np.float32), np.arange(10, dtype=np.int64) % 2)  # a camera with its lens cap on
    take_step(NET, recipe, begin(NET, recipe, {"theta": NET.init(0)}, {}), same, np.random.default_rng(0), Workspace())


@pytest.mark.slow
def test_no_seed_dies_at_high_rates() -> None:
    """With squared distances as they are, at a scale of 0.1, 8 of these 10 seeds die at a rate of 0.2."""
    net = Model([Flatten(), Dense(64), ReLU(), Dense(32)], (8, 8, 1), "prototypes")
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int64) % 5
    samples = Samples(
        (3 * rng.standard_normal((60, 8, 8, 1)) + 3 * rng.standard_normal((5, 8, 8, 1))[y]).astype(np.float32), y
    )
    for lr in (0.05, 0.1, 0.2):
        recipe = PhaseConfig(algorithm="protonet", batch_size=32, lr=lr)
        for seed in range(10):
            state = begin(net, recipe, {"theta": net.init(seed)}, {})
            for step in range(60):
                take_step(net, recipe, state, samples, np.random.default_rng([seed, step]), Workspace())
            assert state.loss_sum / 60 < np.log(5), (lr, seed)
