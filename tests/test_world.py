"""A few seeded worlds, and what one hostile device of each kind costs; `make world` runs as many as a minute holds."""

import pytest
from inhabitants import HOSTILE
from world import inhabit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(3))
def test_a_world_comes_to_its_end(seed):
    assert inhabit(seed).judge.closed >= 5


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_hostile_device_costs_few_deadlines(kind):
    world = inhabit(1, kinds=["honest"] * 4 + [kind], rounds=12, calm=True)
    # Asked in rounds 1 and 10, and in the evaluations of the start and of what follows.
    assert world.deadlines <= 6
    assert world.judge.closed >= 12
