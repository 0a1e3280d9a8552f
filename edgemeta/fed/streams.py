"""Where every random number of a run comes from: one generator for each purpose, round, participant and step.

Nothing depends on the order in which devices call or on the time, so a simulation and a gateway draw the same.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a generator is for. The numbers are part of a run's definition: never change one."""

    PARTITION = 1
    NOISE = 2
    VALIDATION = 3
    SELECTION = 4
    TRAINING = 5
    EVALUATION = 6
    ALONE = 7
    CLASSES = 8
    SKETCH = 9


def generator(seed: int, stream: Stream, *where: int) -> np.random.Generator:
    """Return the generator of one purpose at one place of a run, say (phase, round, participant, step)."""
    return np.random.default_rng([seed, stream, *where])
