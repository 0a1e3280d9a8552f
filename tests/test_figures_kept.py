"""That every figure of the answer is on a page, and those of the page, seed by seed, in the JSON beside it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
KEPT = ("own-classes.json", "figures.json", "neighbours.json", "deaths.json", "similar.json")
WHICH = re.search(r"^## Which method when\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
PAGE = "".join((ROOT / "docs" / name).read_text() for name in ("own-classes.md", "similar.md", "figures.md"))


def seeds_in(value: Any) -> Iterator[tuple[float, ...]]:
    """Yield every list of accuracies by seed, behind a name and its steps and pictures or alone."""
    if isinstance(value, dict):
        for item in value.values():
            yield from seeds_in(item)
    elif isinstance(value, list):
        numbers = [item for item in value if isinstance(item, float)]
        if len(numbers) > 1 and all(0 <= number <= 1 for number in numbers):
            yield tuple(numbers)
        for item in value:
            yield from seeds_in(item)


@pytest.fixture(scope="module")
def kept() -> list[tuple[float, ...]]:
    return [seeds for name in KEPT for seeds in seeds_in(json.loads((ROOT / "docs" / name).read_text()))]


def test_three_seeds_on_the_page_are_those_of_one_row(kept: list[tuple[float, ...]]) -> None:
    """Also their mean; both are rounded."""
    said = re.findall(r"(\d+\.\d)%\*{0,2} \(((?:\d+\.\d ){2}\d+\.\d)\)", PAGE)
    assert len(said) > 20
    rows = [(100 * sum(seeds) / len(seeds), tuple(100 * one for one in seeds)) for seeds in kept if len(seeds) == 3]
    for mean, triple in said:
        figures = [float(mean), *map(float, triple.split())]
        assert any(
            all(abs(found - figure) < 0.06 for found, figure in zip((m, *each), figures, strict=True))
            for m, each in rows
        ), f"{mean}% ({triple})"


def linked(target: str) -> str:
    """Return the text of the section that a link leads to; of a page without an anchor, all of it."""
    name, _, anchor = target.partition("#")
    page = (ROOT / name).read_text()
    if not anchor:
        return page
    for level, title, body in re.findall(r"^(#+) (.+)\n((?:(?!#).*\n?)*)", page, re.MULTILINE):
        if re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") == anchor:
            return str(level + title + body)
    raise AssertionError(f"{target} leads nowhere")


def test_every_figure_of_the_answer_is_where_its_row_links_to() -> None:
    assert WHICH
    rows = [line for line in WHICH[1].splitlines() if line.startswith("|") and "](docs/" in line]
    assert len(rows) > 6
    for row in rows:
        told = "".join(linked(target) for target in re.findall(r"\]\((docs/[^)]+)\)", row))
        there = set(re.findall(r"(?<![\d.])\d+(?:\.\d)?(?= ?%)", told)) | set(
            re.findall(r"(?<![\d.])\d+\.\d(?= )", told)
        )
        shown = re.findall(r"(?<![\d.])\d+(?:\.\d)?(?= ?%)", row)
        assert [figure for figure in shown if figure not in there] == [], row
