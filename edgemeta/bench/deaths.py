"""Does `protonet` die? Ten seeds at each of three rates, on CIFAR-10 over 100 participants with five classes each.

    python -m edgemeta.bench.deaths --data cifar-10-batches-bin [--model cnn-small] [--json]

A run has died when the network makes the same of all samples, or its loss is not finite; it says so itself. Where one
died, it did so in its first rounds: there are twenty here, of 20 participants and 10 steps.

docs/own-classes.md has the figures.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from edgemeta import api
from edgemeta.errors import DivergedError

RATES, ROUNDS = (0.05, 0.1, 0.2), 20


def settings(data: str, model: str, lr: float, seed: int) -> dict[str, Any]:
    """Return one run's."""
    return {
        "seed": seed,
        "model": {"name": model, "classes": "own"},
        "data": {"source": data, "participants": 100, "held_out": 10, "partition": "shards:5"},
        "phases": [{"algorithm": "protonet", "rounds": ROUNDS, "local_steps": 10, "batch_size": 64, "lr": lr}],
        "server": {"fraction_fit": 0.222},
        "evaluation": {"every": ROUNDS},
    }


def outcome(config: dict[str, Any], jobs: int) -> dict[str, Any]:
    """Return how a run ended: the accuracy of new participants, with prototypes of a hundred pictures, or its death."""
    began, row = time.monotonic(), {"lr": config["phases"][0]["lr"], "seed": config["seed"]}
    try:
        summary = api.simulate(config, jobs=jobs).summary
        row |= {"died": None, "new": round(summary["evaluation_new"]["after"]["accuracy"]["mean"], 4)}
    except DivergedError as error:
        row |= {"died": str(error), "new": None}
    return row | {"seconds": round(time.monotonic() - began, 1)}


def rows(data: str, model: str, seeds: Sequence[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Yield every run's row."""
    for lr in RATES:
        yield from (outcome(settings(data, model, lr, seed), jobs) for seed in seeds)


def table(kept: Sequence[dict[str, Any]]) -> str:
    """Return how many of each rate's runs died, and the lowest and the highest accuracy of the others."""
    lines = ["| `lr` | died | new ones, lowest and highest |", "|---|---|---|"]
    for lr in RATES:
        these = [row for row in kept if row["lr"] == lr]
        alive = sorted(row["new"] for row in these if row["died"] is None)
        between = f"{100 * alive[0]:.1f}% to {100 * alive[-1]:.1f}%" if alive else ""
        lines.append(f"| {lr} | {len(these) - len(alive)} of {len(these)} | {between} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m edgemeta.bench.deaths", description="does protonet die?")
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--model", default="cnn-small")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=2, help="processes for the participants")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kept = list(rows(options.data, options.model, options.seeds, options.jobs))
    if options.json:
        print(json.dumps({"model": options.model, "rounds": ROUNDS, "seeds": options.seeds, "rows": kept}, indent=1))
    else:
        print(table(kept))


if __name__ == "__main__":
    main()
