"""Folders of small pictures that are easy to tell apart."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}


def photograph(folder: Path, name: str, colour: str, count: int = 24) -> None:
    """Fill a folder with noisy pictures of one colour."""
    (folder / name).mkdir(parents=True)
    for i in range(count):
        noise = np.random.default_rng([len(colour), i]).integers(-35, 35, (8, 8, 3))
        Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(
            folder / name / f"{colour}-{i}.png"
        )
