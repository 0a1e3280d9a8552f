"""What is counted as a death, and that the page has the figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgemeta.bench import deaths

DOCS = Path(__file__).parents[2] / "docs"


def small(lr: float) -> dict[str, Any]:
    """Return the settings of one short run on built-in pictures."""
    return deaths.settings("synthetic:samples=400,classes=4,size=8", "mlp", lr, 0) | {
        "data": {"source": "synthetic:samples=400,classes=4,size=8", "participants": 4, "held_out": 1},
        "phases": [{"algorithm": "protonet", "rounds": 1, "local_steps": 2, "batch_size": 16, "lr": lr}],
    }


@pytest.mark.parametrize(("lr", "dies"), [(0.05, False), (1e30, True)])
def test_a_run_that_dies_is_a_row_that_says_so(lr: float, dies: bool) -> None:
    row = deaths.outcome(small(lr), jobs=1)
    assert (row["lr"], row["seed"], row["new"] is None) == (lr, 0, dies)
    assert ("lower" in row["died"]) if dies else row["died"] is None


def test_the_table_counts_them() -> None:
    rows = [{"lr": 0.1, "died": None, "new": new} for new in (0.61, 0.5, 0.55)]
    rows += [{"lr": 0.1, "died": "training has died", "new": None}]
    assert "| 0.1 | 1 of 4 | 50.0% to 61.0% |" in deaths.table(rows)


def test_the_page_has_the_figures() -> None:
    kept = json.loads((DOCS / "deaths.json").read_text())
    assert deaths.table(kept["rows"]) in (DOCS / "own-classes.md").read_text()
    assert len(kept["rows"]) == len(deaths.RATES) * len(kept["seeds"]) >= 30
