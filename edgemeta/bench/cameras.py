"""CIFAR-10 as two kinds of cameras see it, in an .npz that says whose each picture is: data for experiments.

    python -m edgemeta.bench.cameras --data cifar-10-batches-bin --out cameras.npz

A hundred participants of 500 training and 100 test pictures, of all ten classes; every other one's camera inverts,
blurs and tints (`edgemeta.bench.similar.other_camera`). It is for `data.partition = "natural"`, and the same wherever
it is made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.bench.similar import Labels, Pictures, other_camera
from edgemeta.data import Dataset, open_data

PARTICIPANTS = 100


def seen(side: Dataset, each: int, rng: np.random.Generator) -> tuple[Pictures, Labels, Labels]:
    """Return pictures of a set, drawn without repetition, their labels, and whose they are: `each` a participant."""
    x, y = side.take(rng.permutation(len(side))[: PARTICIPANTS * each]).load()
    whose = np.repeat(np.arange(PARTICIPANTS, dtype=np.int64), each)
    other = whose % 2 == 1
    x[other], _ = other_camera(x[other], y[other])
    return x, y, whose


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m edgemeta.bench.cameras", description="two kinds of cameras")
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    options = parser.parse_args(arguments)
    split, rng = open_data(options.data), np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(split.train.classes)}
    for ending, side, each in (("train", split.train, 500), ("test", split.test, 100)):
        if len(side) < PARTICIPANTS * each:
            parser.error(f"--data has {len(side)} {ending} pictures: expected {PARTICIPANTS * each} or more")
        x, y, whose = seen(side, each, rng)
        arrays |= {f"x_{ending}": x, f"y_{ending}": y, f"participant_{ending}": whose}
    np.savez(options.out, **arrays)


if __name__ == "__main__":
    main()
