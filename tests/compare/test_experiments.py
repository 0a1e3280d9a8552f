"""The experiments of docs/experiments: each can begin, a page has its command, and a toy of the main one runs."""

import json
import re
from pathlib import Path

import pytest

from edgemeta.cli import _status
from edgemeta.compare import scoring
from edgemeta.compare.entries import entries_from
from edgemeta.compare.work import prepared

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "experiments").glob("*.toml"))
PAGES = "".join((DOCS / name).read_text() for name in ("own-classes.md", "similar.md"))
TOY = {
    "model.name": "mlp",
    "data.source": "synthetic:samples=1200,size=8",
    "data.participants": 6,
    "data.held_out": 1,
    "phases.0.rounds": 2,
    "phases.0.local_steps": 2,
    "server.fraction_fit": 1.0,
    "evaluation.every": 1,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_can_begin(path: Path) -> None:
    (entry,) = entries_from([str(path)], "synthetic:samples=6000", [])
    if entry.config.data.partition != "natural":  # which built-in pictures have no groups for
        assert prepared(entry, entry.config).network.name == entry.config.model.name


def test_a_page_has_the_command_of_each() -> None:
    named = re.findall(r"docs/experiments/([\w*-]+\.toml)", PAGES)
    assert {path for name in named for path in (DOCS / "experiments").glob(name)} == set(FILES)


def test_a_toy_of_the_main_one(tmp_path, monkeypatch, capsys) -> None:
    """Two methods, each tuned and at two seeds, with every adaptation that goes with it, into rows and a page."""
    monkeypatch.setattr(scoring, "SUPPORTS", (20,))
    runs = [str(DOCS / "experiments" / f"{name}.toml") for name in ("own-protonet", "named-fedavg")]
    settings = [word for key, value in TOY.items() for word in ("--set", f"{key}={value}")]
    assert _status(["compare", *runs, "--seeds", "0,1", "--out", str(tmp_path / "out"), *settings]) == 0
    rows = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out" / "rows").glob("*.json")}
    assert set(rows) == {f"{name}-seed-{seed}" for name in ("own-protonet", "named-fedavg") for seed in (0, 1)}
    ways = {name: {cell["adaptation"] for cell in row["scores"][0]["cells"]} for name, row in rows.items()}
    assert ways["own-protonet-seed-0"] == {"prototypes", "ridge", "sgd", "head"}
    assert ways["named-fedavg-seed-1"] == {"prototypes", "ridge", "sgd", "head", "known"}
    assert [len(rows[f"{name}-seed-1"]["tried"]) for name in ("own-protonet", "named-fedavg")] == [3, 6]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "What was tuned on what" in page
    assert "own-protonet" in capsys.readouterr().out
