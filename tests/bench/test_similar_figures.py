"""How rounds of similar participants are measured, by hand, and that their page has what was measured."""

import json
from pathlib import Path

import numpy as np

from edgemeta.bench import similar
from edgemeta.bench.similar import found, next_name, other_camera, smaller

DOCS = Path(__file__).parents[2] / "docs"


def test_the_other_kinds_by_hand() -> None:
    """Blurred, each of 2 x 2 pixels is their mean: of 255, 155, 55 and 55, inverted 0, 100, 200 and 200, it is 125."""
    one = np.array([[[255], [155]], [[55], [55]]], np.uint8)
    seen, labels = other_camera(np.repeat(one[np.newaxis], 3, axis=3), np.array([9]))
    assert seen.dtype == np.uint8
    assert seen.tolist() == [[[[125, 100, 75]] * 2] * 2]
    assert labels.tolist() == [9]
    assert next_name(seen, np.array([0, 8, 9]))[1].tolist() == [1, 9, 0]


def test_a_smaller_picture_has_the_means_of_four_pixels() -> None:
    x = np.zeros((1, 32, 32, 3), np.uint8)
    x[0, 2:4, 30:32, 1] = [[10, 20], [30, 40]]
    seen = smaller(x)
    assert seen.shape == (1, 16, 16, 3)
    assert (seen.sum(), seen[0, 1, 15, 1]) == (25, 25)


def test_who_is_found_is_counted_whatever_the_groups_are_called() -> None:
    """Even and odd participants, and one odd one that looks like an even one."""
    east, north = np.eye(64, dtype=np.float32)[:2]
    sketches = {k: north if k % 2 else east for k in range(9)} | {9: east}
    assert found(sketches) == 0.9


def test_the_page_has_the_figures() -> None:
    kept = json.loads((DOCS / "similar.json").read_text())
    assert similar.table(kept["rows"]) in (DOCS / "similar.md").read_text()
    assert len(kept["rows"]) == len(similar.POPULATIONS) * len(similar.SERVER) * len(kept["seeds"])
