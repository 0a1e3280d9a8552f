"""What the start that ships is good for: classes from a few pictures each, beside the same network untrained.

    python -m edgemeta.bench.start --cifar cifar-10-batches-bin --omniglot images_background_small1 [--json]

An episode is so many classes, drawn from all that a set has, and one or five labelled pictures of each. A class is the
mean of its pictures' embeddings, and what is scored is the share of other pictures that are nearest to their own
class's. The pictures, all of 32 x 32 x 3: CIFAR-10's test pictures (the start was made of the training pictures of the
same ten classes), and Omniglot's drawings and the built-in set's test pictures, which it never saw the like of. A seed
draws the untrained network, the half of each class's pictures that labelled ones come from, and the episodes.

docs/start.md has the figures, and says how the start was made.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgemeta.data import open_data
from edgemeta.meta import Samples, TrainedModel, load_model
from edgemeta.meta.adaptations import features
from edgemeta.meta.episodes import Classify, score_episodes
from edgemeta.meta.trained import START
from edgemeta.nn import Vector
from edgemeta.nn.prototypes import distances, means

SHAPE = (32, 32, 3)
EPISODES = 200
TASKS = {"CIFAR-10": ((3, 5), (5, 5)), "Omniglot": ((5, 1), (5, 5)), "built-in": ((3, 5), (5, 5))}  # ways, shots


def pictures(cifar: str, omniglot: str) -> Iterator[tuple[str, Samples]]:
    """Yield each set's name, and pictures of it that the start was not made of."""
    yield "CIFAR-10", Samples(*open_data(cifar, shape=SHAPE).test.load())
    drawn = open_data(omniglot, shape=SHAPE)
    parts = [part.load() for part in (drawn.train, drawn.test)]
    yield "Omniglot", Samples(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
    yield "built-in", Samples(*open_data("synthetic", shape=SHAPE).test.load())


def nearest(support: Samples, _: np.random.Generator) -> Classify:
    """Return what tells an episode's classes apart. The samples, here as there, are embeddings."""
    centres = means(support.x, support.y)[1]
    return lambda z: -distances(z, centres)


def accuracy(z: Vector, y: np.ndarray[Any, Any], ways: int, shots: int, seed: int) -> float:
    """Return the mean over a seed's episodes, which are the same ones whatever the embedding. z: (N, E), y: (N,)."""
    order = np.random.default_rng([seed, 0]).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]  # class by class: every other one is half of each
    labelled, scored = (Samples(z[part], y[part]) for part in (order[::2], order[1::2]))
    rng = np.random.default_rng([seed, 1])
    found = score_episodes(nearest, labelled, scored, ways=ways, shots=shots, episodes=EPISODES, rng=rng)
    assert found is not None  # all sets have five classes with as many pictures
    return found


def run(model: TrainedModel, sets: Iterator[tuple[str, Samples]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each set and task: the accuracies of the model and of the same network untrained, by seed."""
    rows = []
    for name, samples in sets:
        trained = features(model.network, model.theta, samples)
        untrained = [features(model.network, model.network.init(seed), samples) for seed in seeds]
        for ways, shots in TASKS[name]:
            task = {"pictures": name, "ways": ways, "shots": shots}
            scores = [[accuracy(z, samples.y, ways, shots, seed) for z, seed in zip(many, seeds, strict=True)]
                      for many in ([trained] * len(seeds), untrained)]  # fmt: skip
            rows.append(task | {"start": scores[0], "untrained": scores[1]})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the mean over the seeds, and the lowest and the highest."""

    def cell(scores: Sequence[float]) -> str:
        return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"

    lines = ["| pictures | classes | labelled pictures of each | start | untrained |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [row["pictures"], row["ways"], row["shots"], cell(row["start"]), cell(row["untrained"])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def asked(module: str, what: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a measurement with these pictures."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=what)
    parser.add_argument("--cifar", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--omniglot", required=True, help="the folder of alphabets")
    parser.add_argument("--model", default=START, help="another embedding of such pictures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON object."""
    options = asked("edgemeta.bench.start", "few-shot figures of the start", arguments)
    rows = run(load_model(options.model), pictures(options.cifar, options.omniglot), options.seeds)
    print(json.dumps({"seeds": options.seeds, "episodes": EPISODES, "rows": rows}, indent=1)
          if options.json else table(rows))  # fmt: skip


if __name__ == "__main__":
    main()
