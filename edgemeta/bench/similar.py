"""Are participants of one kind found by their updates, and what do rounds of one kind bring?

    python -m edgemeta.bench.similar --data cifar-10-batches-bin [--json]

CIFAR-10 over 40 participants that train and 8 new ones, 300 training and 100 test pictures each, made smaller (16 x 16)
so that all of it takes minutes. Every other participant is of another kind: it calls each class by the next one's name
(*labels*), or its camera inverts, blurs and tints pictures (*cameras*); or all are of *one kind*. The same budget for
each, 240 times twenty local steps: as 30 rounds of 8 participants, drawn from all (*random*) or from one of two groups
(*similar*), or as 6 rounds of *all*.

docs/similar.md has the figures.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import config_from
from edgemeta.data import Split, from_arrays, open_data
from edgemeta.fed.participants import Participant, divide
from edgemeta.fed.plan import network_of, resolve
from edgemeta.fed.scores import Evaluation, Record
from edgemeta.fed.server_step import load_state
from edgemeta.fed.similar import Sketches, grouped
from edgemeta.fed.simulation import run

TRAINING, NEW, PICTURES, SCORED = 40, 8, 300, 100
SHAPE = (16, 16, 3)
ROUNDS = {"all": 6, "random": 30, "similar": 30}
SERVER: dict[str, dict[str, Any]] = {
    "all": {},
    "random": {"fraction_fit": 0.2},
    "similar": {"fraction_fit": 0.2, "selection": "similar"},
}
POPULATIONS = [
    *((kind, "iid") for kind in ("labels", "cameras", "one kind")),
    *((kind, "dirichlet:0.5") for kind in ("labels", "cameras")),
]
Pictures = NDArray[np.uint8]
Labels = NDArray[np.int64]


def smaller(x: Pictures) -> Pictures:
    """Return pictures, (N, 32, 32, 3), at half their width and height."""
    means: NDArray[Any] = x.reshape(len(x), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return means.astype(np.uint8)


def next_name(x: Pictures, y: Labels) -> tuple[Pictures, Labels]:
    """Return pictures whose classes have the next one's name."""
    return x, (y + 1) % 10


def other_camera(x: Pictures, y: Labels) -> tuple[Pictures, Labels]:
    """Return pictures, (N, H, W, 3), inverted, blurred over two by two pixels, and tinted."""
    seen: NDArray[Any] = 255 - x.astype(np.float32)
    seen = (seen + np.roll(seen, 1, 1) + np.roll(seen, 1, 2) + np.roll(seen, (1, 1), (1, 2))) / 4
    return (seen * np.array([1, 0.8, 0.6], np.float32)).astype(np.uint8), y


KINDS: dict[str, Callable[[Pictures, Labels], tuple[Pictures, Labels]]] = {
    "labels": next_name,
    "cameras": other_camera,
    "one kind": lambda x, y: (x, y),
}


def found(sketches: Sketches) -> float:
    """Return the share of participants that are in the group of their kind: by chance little above a half."""
    known = sorted(sketches)
    groups = grouped(np.stack([sketches[k] for k in known]).astype(np.float64), 2, np.random.default_rng(0))
    right = float(np.mean(groups == np.array(known) % 2))
    return max(right, 1 - right)


def scores(evaluation: Evaluation) -> dict[str, float]:
    """Return accuracies of the model as it is, and after five steps on a hundred of a participant's own pictures."""
    assert evaluation["before"] is not None  # classes have common names
    by = {"before": evaluation["before"], "after": evaluation["after"]}
    return {name: round(spread["accuracy"]["mean"], 4) for name, spread in by.items()}


def measure(split: Split, kind: str, partition: str, selection: str, seed: int) -> dict[str, Any]:
    """Return one run's row."""
    rounds = ROUNDS[selection]
    settings = {
        "seed": seed,
        "model": {"name": "cnn-small"},
        "data": {"participants": TRAINING + NEW, "held_out": NEW, "partition": partition},
        "phases": [{"algorithm": "fedavg", "rounds": rounds, "local_steps": 20, "lr": 0.05}],
        "server": SERVER[selection],
        "evaluation": {"every": rounds},
    }
    config = resolve(config_from(settings), SHAPE, split.train.classes)
    participants, rng = [], np.random.default_rng([seed, 0])
    for part in divide(split, config.data, seed)[0]:
        sides = []
        for side, most in ((part.train_set, PICTURES), (part.test_set, SCORED)):
            x, y = side.take(np.sort(rng.permutation(len(side))[:most])).load()
            x, y = KINDS[kind](smaller(x), y) if part.number % 2 else (smaller(x), y)
            sides.append(from_arrays(x, y, split.train.classes))
        participants.append(Participant(sides[0], sides[1], part.number))
    shares: dict[int, float] = {}
    network, began = network_of(config), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:

        def look(record: Record) -> None:
            number = record["round"]
            state = load_state(Path(folder) / "rounds" / f"{number:06d}" / "server.safetensors")
            if number % 10 == 0 and state.sketches and kind != "one kind":
                shares[number] = round(found(state.sketches), 3)

        start = network.init(seed)
        done = run(
            config, network, participants, out=Path(folder), theta=start, clock=time.monotonic, on_round=look
        ).summary
    return {
        **{"kind": kind, "partition": partition, "selection": selection, "seed": seed},
        "found": shares,
        "participants": scores(done["evaluation"]),
        "new": scores(done["evaluation_new"]),
        "seconds": round(time.monotonic() - began, 1),
    }


def rows(split: Split, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield every run's row."""
    for seed in seeds:
        for kind, partition in POPULATIONS:
            for selection in SERVER:
                yield measure(split, kind, partition, selection, seed)


def table(kept: Sequence[dict[str, Any]]) -> str:
    """Return the means over the seeds in per cent, of participants' accuracies and of new ones' behind the stroke."""
    names = ("before", "after")
    lines = [f"| kinds | partition | selection | {' | '.join(names)} | found |", "|---|---|---|---|---|---|"]
    for kind, partition in POPULATIONS:
        for selection in SERVER:
            these = [r for r in kept if (r["kind"], r["partition"], r["selection"]) == (kind, partition, selection)]
            if not these:
                continue
            cells = [
                " / ".join(f"{100 * np.mean([row[who][name] for row in these]):.1f}" for who in ("participants", "new"))
                for name in names
            ]
            shares = [[row["found"][number] for row in these] for number in these[0]["found"]]
            right = ", ".join(f"{100 * np.mean(share):.0f} %" for share in shares)
            lines.append(f"| {kind} | `{partition}` | {selection} | {' | '.join(cells)} | {right} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m edgemeta.bench.similar", description="rounds of one kind")
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kept = list(rows(open_data(options.data), options.seeds))
    print(json.dumps({"seeds": options.seeds, "rows": kept}, indent=1) if options.json else table(kept))


if __name__ == "__main__":
    main()
