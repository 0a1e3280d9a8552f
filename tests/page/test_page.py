"""Pages of one file: well-formed, without a network or a script, and safe with names of others."""

import re
from html.parser import HTMLParser

import pytest

from edgemeta.page.chart import Curve, chart, key, short
from edgemeta.page.document import document, table

EMPTY = {"meta", "line", "polyline", "polygon", "circle"}


class Checked(HTMLParser):
    """Raises where a tag is closed that is not open; collects what the page refers to."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.links, self.shown = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown.append(data)


CURVES = [Curve("a", [(0, 0.1, 0.1, 0.1), (50, 0.6, 0.5, 0.8)]), Curve("none", []), Curve("c", [(100, 0.2, 0.2, 0.2)])]


def test_a_page_is_whole_and_asks_for_nothing():
    page = document("T", [table(["", "x"], [["r", "1"]]), key(["a", None, "c"]), chart("C", "rounds", CURVES)])
    found = Checked(page)
    assert found.links == []
    assert "script" not in found.seen
    assert not re.search(r"https?:|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


def test_names_of_others_are_shown_and_do_nothing():
    name = '<script>alert(1)</script>\u202e&"'
    page = document(name, [table([name], [[name]]), key([name]), chart(name, name, [Curve(name, [(1, 1, 1, 1)])])])
    found = Checked(page)
    assert "script" not in found.seen
    assert "\u202e" not in page
    assert any('<script>alert(1)</script>\\u202e&"' in data for data in found.shown)


def test_a_curve_is_where_its_numbers_say():
    svg = chart("C", "rounds", CURVES)
    # 360 x 240 with margins 44, 10, 10, 36: x from 44 to 350 for 0 to 100, y from 204 to 10 for 0 to 80 %.
    assert 'points="44.0,179.8 197.0,58.5"' in svg
    assert 'points="44.0,179.8 197.0,10.0 197.0,82.8 44.0,179.8"' in svg  # the band
    assert 'cx="350.0" cy="155.5"' in svg
    assert "a ends at 60.0 %" in svg


@pytest.mark.parametrize(("value", "said"), [(0, "0"), (15, "15"), (1500, "1.5k"), (2e7, "20M"), (3e9, "3G")])
def test_numbers_on_an_axis_are_short(value, said):
    assert short(value) == said


def test_a_chart_of_one_point_at_the_start_is_drawn():
    assert "<circle" in chart("C", "rounds", [Curve("a", [(0, 0.0, 0.0, 0.0)])])
