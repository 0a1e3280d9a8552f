"""How the start that ships is measured, by hand, and that its page has what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgemeta.bench import nothing
from edgemeta.bench.nothing import area
from edgemeta.bench.start import accuracy, table

DOCS = Path(__file__).parents[2] / "docs"


def test_an_episode_by_hand() -> None:
    """Three classes, two of them in one place: one of the two gets all that lies there, whatever is drawn."""
    z = np.array([0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8], np.float32)[:, np.newaxis]
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    assert accuracy(z, y, 3, 2, seed=0) == pytest.approx(2 / 3)
    assert accuracy(z * 0, y, 3, 1, seed=1) == pytest.approx(1 / 3)
    assert accuracy(z[:8], y[:8], 2, 1, seed=2) == 1


def test_an_area_by_hand() -> None:
    assert area(np.array([3, 4]), np.array([1, 3.5])) == 3 / 4


def test_the_page_has_the_figures() -> None:
    page, kept = (DOCS / "start.md").read_text(), json.loads((DOCS / "start.json").read_text())
    assert len(kept["rows"]) == 6
    assert table(kept["rows"]) in page
    kept = json.loads((DOCS / "nothing.json").read_text())
    assert nothing.table(kept["rows"]) in page
