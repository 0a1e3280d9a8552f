"""Episodes: N-way K-shot tasks, drawn from one participant's own classes (Vinyals et al. 2016, arXiv:1606.04080).

The support set is drawn from its training samples; the queries are all its test samples of the same classes, and they
are scored and nothing else. What learns from a support set is an argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError
from edgemeta.meta.samples import Samples

Classify = Callable[[NDArray[Any]], NDArray[Any]]  # samples (B, ...) -> a number (B, ways) for each class
Learn = Callable[[Samples, np.random.Generator], Classify]  # a support set -> what tells its classes apart


class Episode(NamedTuple):
    """A task: labels of both sides are 0 to ways - 1, whatever the classes are called."""

    support: Samples
    query: Samples


def usable_classes(train: NDArray[np.int64], test: NDArray[np.int64], shots: int) -> NDArray[np.int64]:
    """Return the labels that an episode may have: those with `shots` training samples, and a test sample.

    train, test: (N,) and (M,) labels.
    """
    labels, counts = np.unique(train, return_counts=True)
    return labels[(counts >= shots) & np.isin(labels, test)]


def draw_episode(train: Samples, test: Samples, ways: int, shots: int, rng: np.random.Generator) -> Episode:
    """Return an episode of `ways` classes, with `shots` training samples of each as its support set.

    Raises DataError where there are too few classes with so many samples.
    """
    usable = usable_classes(train.y, test.y, shots)
    if len(usable) < ways:
        raise DataError(
            f"{len(usable)} classes have {shots} training samples and a test sample: an episode needs {ways}; "
            "lower evaluation.ways or evaluation.shots"
        )
    classes = rng.permutation(usable)[:ways]
    support = [rng.permutation(np.flatnonzero(train.y == label))[:shots] for label in classes]
    query = [np.flatnonzero(test.y == label) for label in classes]
    return Episode(_numbered(train, support), _numbered(test, query))


def score_episodes(
    learn: Learn, train: Samples, test: Samples, *, ways: int, shots: int, episodes: int, rng: np.random.Generator
) -> float | None:
    """Return the mean over episodes of the share of queries that are classified right.

    None for a participant with too few classes for one.
    """
    if len(usable_classes(train.y, test.y, shots)) < ways:
        return None
    shares = []
    for _ in range(episodes):
        support, query = draw_episode(train, test, ways, shots, rng)
        found = learn(support, rng)(query.x)
        shares.append(float(np.mean(found.argmax(axis=1) == query.y)))
    return float(np.mean(shares))


def _numbered(samples: Samples, classes: list[NDArray[np.intp]]) -> Samples:
    """Return the samples at some places, class by class, labelled by their class's position."""
    sizes = [len(places) for places in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), sizes)
    return Samples(samples.x[np.concatenate(classes)], labels)
