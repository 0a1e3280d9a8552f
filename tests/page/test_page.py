"""Pages of one file: well-formed, without a network or a script, and safe with names of others."""

import re

import pytest
from markup import Checked

from edgemeta.page.chart import Curve, chart, key, short
from edgemeta.page.document import NONE, document, table

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


def test_what_there_is_none_of_can_be_left_out_on_a_phone():
    found = table(["run", "before", "after"], [["a", NONE, "0.5"]])
    assert '<td class="none" data-of="before">-</td><td data-of="after">0.5</td>' in found
    assert "td.none { display: none; }" in document("page", [found])


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


def test_values_that_are_no_shares_have_an_axis_of_their_own():
    svg = chart("L", "rounds", [Curve("a", [(0, 9.0, 9.0, 9.0), (10, 4.5, 4.5, 4.5)])], shares=False)
    # Up to 9 there are ticks at 5 and at 10, which is the top: 194 units for 10, so 9 is 174.6 above the line at 204.
    assert 'points="44.0,29.4 350.0,116.7"' in svg
    assert ">10</text>" in svg
    assert "a ends at 4.5" in svg
    assert "%" not in svg
