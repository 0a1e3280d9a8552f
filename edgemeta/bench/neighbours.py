"""kNN-Per (Marfoq et al. 2022, arXiv:2111.09360): does asking the nearest of a participant's own samples help?

    python -m edgemeta.bench.neighbours RUN... [--json]

RUN: directories of runs whose classes have common names, one a seed. A participant's answer is a mixture: a share of
what the model says, and a share of what the ten nearest of its labelled samples say, each by exp(-d), where d is the
squared distance of the embeddings over the mean one. The share, one for all participants, is the one of eleven that
does best for those that train, on training pictures that are not among the labelled ones; new ones are then scored
on their test pictures. Beside it the two that it mixes: the model as it is, and its neighbours alone.

docs/own-classes.md has the figures.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta import api
from edgemeta.fed.participants import Participant
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import Samples, TrainedModel, load_model
from edgemeta.meta.adaptations import features
from edgemeta.meta.evaluation import outputs_of
from edgemeta.nn.heads import body_of
from edgemeta.nn.losses import softmax
from edgemeta.nn.prototypes import distances

NEAREST, SUPPORTS, QUERIES = 10, (20, 100), 200
SHARES = np.arange(11) / 10  # of the neighbours in the answer
Chances = NDArray[Any]


def of_neighbours(z: Chances, known: Chances, labels: NDArray[np.int64], classes: int) -> Chances:
    """Return what the nearest labelled samples say, (N, classes). z: (N, E) embeddings; known: (S, E), labels: (S,)."""
    squares = distances(z, known)
    nearest = np.argsort(squares, axis=1, kind="stable")[:, :NEAREST]
    near = np.take_along_axis(squares, nearest, axis=1)  # of an outlier all are far: what counts is by how much more
    weights = np.exp((near[:, :1] - near) / (squares.mean() or 1.0))
    votes = np.zeros((len(z), classes))
    np.add.at(votes, (np.arange(len(z))[:, np.newaxis], labels[nearest]), weights)
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def right(model: TrainedModel, support: Samples, scored: Samples) -> Chances:
    """Return for each of SHARES how many of the scored samples are named right."""
    body, classes = body_of(model.network), len(model.classes)
    z, known = (features(body, model.theta, samples) for samples in (scored, support))
    votes = of_neighbours(z, known, support.y, classes)
    said = softmax(outputs_of(model.network, model.theta, scored.x))
    return np.array([np.sum((s * votes + (1 - s) * said).argmax(axis=1) == scored.y) for s in SHARES])


def accuracies(model: TrainedModel, participants: Sequence[Participant], support: int, seed: int, new: bool) -> Chances:
    """Return for each of SHARES the accuracy over some participants: new ones on their test samples, others not."""
    found, count = np.zeros(len(SHARES)), 0
    for participant in participants:
        order = generator(seed, Stream.EVALUATION, participant.number).permutation(participant.train.size)
        scored = participant.test if new else participant.train.take(order[support : support + QUERIES])
        found += right(model, participant.train.take(order[:support]), scored)
        count += scored.size
    return found / count


def measure(run: str) -> list[dict[str, Any]]:
    """Return a run's rows, one for each number of labelled samples."""
    prepared, model = api.prepare(api.config_of(Path(run, "run.toml"))), load_model(Path(run, api.MODEL_FILE))
    train, seed = len(prepared.participants) - prepared.config.data.held_out, prepared.config.seed
    rows = []
    for support in SUPPORTS:
        best = int(accuracies(model, prepared.participants[:train], support, seed, new=False).argmax())
        each = accuracies(model, prepared.participants[train:], support, seed, new=True).round(4)
        row = {"share": float(SHARES[best]), "mixed": each[best], "model": each[0], "neighbours": each[-1]}
        rows.append({"seed": seed, "support": support} | row)
    return rows


def table(kept: Sequence[dict[str, Any]]) -> str:
    """Return the means over the seeds."""
    lines = ["| labelled pictures | kNN-Per | the model as it is | neighbours alone | share |", "|---|---|---|---|---|"]
    for support in SUPPORTS:
        these = [row for row in kept if row["support"] == support]
        cells = [f"{100 * np.mean([row[what] for row in these]):.1f}%" for what in ("mixed", "model", "neighbours")]
        lines.append(f"| {support} | {' | '.join(cells)} | {', '.join(str(row['share']) for row in these)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m edgemeta.bench.neighbours", description="kNN-Per")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kept = [row for run in options.runs for row in measure(run)]
    print(json.dumps({"runs": options.runs, "rows": kept}, indent=1) if options.json else table(kept))


if __name__ == "__main__":
    main()
