"""Curves as inline SVG, small enough for a phone, in colours that the page's style sets for light, dark and paper."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgemeta.page.document import text

WIDTH, HEIGHT = 360, 240  # units; as wide as a phone, so that text has its size there
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 36  # margins
COLOURS = 8  # --c0 to --c7 of the page's style
DASHES = ("", "6 3", "2 2", "8 3 2 3")
TICKS = 4
UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


class Curve(NamedTuple):
    """points: (x, y, lowest y, highest y), by x."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def chart(title: str, across: str, curves: Sequence[Curve], *, shares: bool = True) -> str:
    """Return a figure of curves over x, with values from 0; across: what x is; shares: values are 0 to 1, shown in %.

    The band about a curve is from the lowest to the highest. A curve's place in `curves` decides its colour and dashes.
    """
    points = [point for curve in curves for point in curve.points]
    most = max((point[0] for point in points), default=0) or 1
    highest = max((point[3] for point in points), default=0) or 1
    step_x, step_y = _step(most), (0.2 if highest > 0.5 else 0.1) if shares else _step(highest)
    top = min(1.0 if shares else math.inf, math.ceil(highest / step_y - 1e-9) * step_y)

    def said(y: float, digits: int = 0) -> str:
        return f"{100 * y:.{digits}f} %" if shares else short(y)

    def at(x: float, y: float) -> str:
        return (
            f"{LEFT + x / most * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"
        )

    parts = [_across(step_x * i, at(step_x * i, 0)) for i in range(int(most / step_x + 1e-9) + 1)]
    parts += [_up(said(step_y * i), at(0, step_y * i)) for i in range(int(top / step_y + 1e-9) + 1)]
    for i, curve in enumerate(curves):
        if curve.points:
            parts += _drawn(i, [at(x, y) for x, y, _, _ in curve.points], _band(curve, at))
    ends = "; ".join(f"{curve.name} ends at {said(curve.points[-1][1], 1)}" for curve in curves if curve.points)
    label = f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{text(across)}</text>'
    return (
        f'<figure><figcaption>{text(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(f"{title}: {ends}")}">{"".join(parts)}{label}</svg></figure>'
    )


def key(names: Sequence[str | None]) -> str:
    """Return which colour and dashes are whose, for all charts of a page; None: a place without a curve."""
    items = "".join(
        f'<li><svg viewBox="0 0 32 12" aria-hidden="true"><line x1="0" x2="32" y1="6" y2="6" {_look(i)}/></svg> '
        f"{text(name)}</li>"
        for i, name in enumerate(names)
        if name is not None
    )
    return f'<ul class="key">{items}</ul>'


def _look(i: int) -> str:
    dashes = DASHES[i // COLOURS % len(DASHES)] or DASHES[i % len(DASHES)]
    return f'style="stroke:var(--c{i % COLOURS})" stroke-width="2" stroke-dasharray="{dashes}" fill="none"'


def _drawn(i: int, line: Sequence[str], band: Sequence[str]) -> list[str]:
    parts = [f'<polygon points="{" ".join(band)}" style="fill:var(--c{i % COLOURS})" opacity=".15"/>'] if band else []
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.2" style="fill:var(--c{i % COLOURS})"/>' for x, y in _split(line))
    return [*parts, f'<polyline points="{" ".join(line)}" {_look(i)}/>', dots]


def _split(line: Sequence[str]) -> list[list[str]]:
    return [point.split(",") for point in line]


def _band(curve: Curve, at: object) -> list[str]:
    assert callable(at)
    if all(low == high for _, _, low, high in curve.points):
        return []
    over = [at(x, high) for x, _, _, high in curve.points]
    return over + [at(x, low) for x, _, low, _ in reversed(curve.points)]


def _across(value: float, place: str) -> str:
    x, y = place.split(",")
    return f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP}" y2="{y}"/>' + (
        f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{short(value)}</text>'
    )


def _up(value: str, place: str) -> str:
    x, y = place.split(",")
    return f'<line class="axis" x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>' + (
        f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{value}</text>'
    )


def _step(most: float) -> float:
    """Return the distance of ticks: 1, 2 or 5 times a power of ten, for a few of them."""
    power = 10.0 ** math.floor(math.log10(most / TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= most * (1 - 1e-9))


def short(value: float) -> str:
    """Return a number for an axis: 1.5M, 20k, 3."""
    for size, letter in UNITS:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
