"""A picture of none of a device's things: is that better seen by a threshold, or taught as a class of its own?

    python -m edgemeta.bench.nothing --cifar cifar-10-batches-bin --omniglot images_background_small1 [--json]

With the start that ships and the pictures of `edgemeta.bench.start`: a device has three classes with five labelled
pictures of each. *Threshold*: a picture that is farther from the nearest class than 95 % of the device's own pictures
are, each left out of its class's mean, is none of these, as with `evaluation.reject`; *area*: how well that and other
rules tell them apart at any rate. *Taught*: twenty pictures of three other classes are a fourth class, "nothing". All
are asked about other pictures of the device's own classes, of the kinds taught as "nothing", and of all others.

docs/start.md has the figures.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.bench.start import EPISODES, asked, pictures
from edgemeta.meta import load_model
from edgemeta.meta.adaptations import features
from edgemeta.nn import Vector
from edgemeta.nn.prototypes import beyond, distances, means

WAYS, SHOTS, TAUGHT, KINDS, QUERIES, RATE = 3, 5, 20, 3, 50, 0.05
Places = NDArray[np.int64]


def rules(z: Vector, centres: Vector, support: Vector) -> list[Vector]:
    """Return by each rule of "areas" how foreign some samples are."""
    squares = np.sort(distances(z, centres), axis=1)
    samples = np.sort(distances(z, support), axis=1)
    return [squares[:, 0], squares[:, 0] / squares[:, 1], samples[:, 0], samples[:, :3].mean(axis=1)]


def area(foreign: NDArray[Any], own: NDArray[Any]) -> float:
    """Return the area under the curve: how often something foreign is farther away than something of one's own."""
    ranks = np.concatenate([foreign, own]).argsort().argsort()[: len(foreign)]
    return float((ranks.sum() - len(foreign) * (len(foreign) - 1) / 2) / (len(foreign) * len(own)))


def episode(z: Vector, y: Places, rng: np.random.Generator) -> list[float]:
    """Return one episode's figures, in the order of FIGURES."""
    classes = rng.permutation(np.unique(y))
    parts = [rng.permutation(np.flatnonzero(y == k)) for k in classes[:WAYS]]
    support, labels = z[np.concatenate([part[:SHOTS] for part in parts])], np.repeat(np.arange(WAYS), SHOTS)
    own = [part[SHOTS : SHOTS + QUERIES] for part in parts]
    own_z, own_y = z[np.concatenate(own)], np.repeat(np.arange(WAYS), [len(part) for part in own])
    kinds, others = (
        rng.permutation(np.flatnonzero(np.isin(y, some)))[: TAUGHT + WAYS * QUERIES]
        for some in (classes[WAYS : WAYS + KINDS], classes[WAYS + KINDS :])
    )
    taught, same, other = z[kinds[:TAUGHT]], z[kinds[TAUGHT:]], z[others]

    centres = means(support, labels)[1]
    far = [distances(some, centres).min(axis=1) for some in (own_z, same, other)]
    most = beyond(support, labels, RATE)
    assert most is not None
    called = [float(np.mean(squares > most)) for squares in far]
    foreign = (rules(some, centres, support) for some in (np.concatenate([same, other]), own_z))
    with_nothing = np.concatenate([centres, taught.mean(axis=0, keepdims=True)])
    plain, named, *found = (
        distances(some, them).argmin(axis=1)
        for some, them in ((own_z, centres), *((some, with_nothing) for some in (own_z, same, other)))
    )
    right = [float(np.mean(names == own_y)) for names in (plain, named)]
    return [
        *called,
        *(area(*pair) for pair in zip(*foreign, strict=True)),
        *right,
        *(float(np.mean(n == WAYS)) for n in (named, *found)),
    ]


FIGURES = {
    "threshold": ("own", "kinds", "others"),  # the shares that it calls none of these
    # Under the curve, by the distance to the nearest class, that over the next one's, those to the nearest samples.
    "area": ("nearest class", "ratio", "nearest sample", "three samples"),
    "taught": ("accuracy without", "accuracy", "own", "kinds", "others"),  # and what is left of naming one's own right
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the means over the seeds, in per cent."""
    lines = [
        "| pictures | | own called none | taught kinds found | others found | own named right |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        for how in ("threshold", "taught"):
            part = {name: f"{100 * float(np.mean(values)):.0f} %" for name, values in row[how].items()}
            right = f"{part['accuracy']} (without {part['accuracy without']})" if how == "taught" else ""
            lines.append(
                f"| {row['pictures']} | {how} | {part['own']} | {part['kinds']} | {part['others']} | {right} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON object."""
    options = asked("edgemeta.bench.nothing", "none of these", arguments)
    model, rows = load_model(options.model), []
    for name, samples in pictures(options.cifar, options.omniglot):
        z = features(model.network, model.theta, samples)
        by_seed = []
        for seed in options.seeds:
            rng = np.random.default_rng([seed, 2])
            by_seed.append(np.mean([episode(z, samples.y, rng) for _ in range(EPISODES)], axis=0))
        values = iter(np.transpose(by_seed).round(4).tolist())
        rows.append(
            {"pictures": name} | {how: {name: next(values) for name in names} for how, names in FIGURES.items()}
        )
    found = {"seeds": options.seeds, "episodes": EPISODES, "rows": rows}
    print(json.dumps(found, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
