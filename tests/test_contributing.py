"""CONTRIBUTING.md: its toy layer and toy learner are tried, and what it names is there."""

import ast
import inspect
import re
import runpy
import tomllib
from pathlib import Path
from unittest.mock import patch

import pytest

from edgemeta.meta.learners import LEARNERS
from edgemeta.nn.layers import LAYERS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TO_ADD = {
    *("layer", "loss", "model", "learner", "adaptation", "aggregator", "server optimiser", "codec", "reader"),
    *("partition", "selection", "command", "route", "setting", "refusal reason", "board's limit"),
}


@pytest.fixture
def page(tmp_path):
    """The page's program as a module's names; what it adds to the tables is gone afterwards."""
    (tmp_path / "toys.py").write_text("\n\n".join(text for kind, text in BLOCKS if kind == "python"))
    with patch.dict(LAYERS), patch.dict(LEARNERS):
        yield runpy.run_path(str(tmp_path / "toys.py"))


@pytest.mark.parametrize("name", ["test_gain_in_a_network", "test_near_by_hand", "test_a_run_of_near"])
def test_the_pages_own_tests_pass(page, name, tmp_path):
    (configuration,) = [tomllib.loads(text) for kind, text in BLOCKS if kind == "toml"]
    given = {"tmp_path": tmp_path, "configuration": configuration}
    page[name](**{wanted: given[wanted] for wanted in inspect.signature(page[name]).parameters})


def test_every_test_of_the_page_is_run():
    (runs,) = test_the_pages_own_tests_pass.pytestmark
    assert set(re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)) == set(runs.args[1])


def rows():
    """Return (what one may add, where, in which tables, with which tests, on which pages)."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines()]
    return [(re.sub("^an? ", "", row[0]), *row[1:]) for row in cells if len(row) == 5 and re.match("an? ", row[0])]


def test_the_page_says_what_to_touch_for_everything_that_one_may_add():
    assert {row[0] for row in rows()} == TO_ADD


def test_every_file_that_is_named_is_there():
    for path in re.findall(r"(?:`|\]\()([a-z_/A-Z]+(?:\.py|\.md|\.toml|/))[`)#]", PAGE):
        assert (ROOT / path).exists() or path == "cli/", path
    for thing, code, _, tests, _ in rows():
        assert re.search(r"`edgemeta/[a-z_/]+(\.py|/)`", code), thing
        assert re.search(r"`tests/[a-z_/]+(\.py|/)`", tests) or thing == "refusal reason", thing


def test_every_table_that_is_named_is_in_a_file_of_its_row():
    for thing, code, tables, _, _ in rows():
        defined = set()
        for path in re.findall(r"`(edgemeta/[a-z_/]+\.py)`", code):
            for node in ast.parse((ROOT / path).read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                defined |= {target.id for target in targets if isinstance(target, ast.Name)}
                defined.add(getattr(node, "name", ""))
        named = re.findall(r"`(\w+)`", tables + code)
        assert set(named) <= defined, thing


def test_every_table_of_variants_is_on_the_page():
    named = {name for row in rows() for name in re.findall(r"`(\w+)`", row[2])}
    variants = {
        "ADAPTATIONS",
        "LAYERS",
        "LOSSES",
        "MODELS",
        "LEARNERS",
        "AGGREGATORS",
        "OPTIMIZERS",
        "SELECTIONS",
        "UPLOADS",
        "ROUTES",
        "Reason",
    }
    assert variants <= named


def test_every_target_of_make_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"^ {4}make ([a-z-]+)", PAGE, re.MULTILINE)
    assert {"lint", "format", "fast", "test", "test-versions", "test-flower"} == set(shown) <= targets
