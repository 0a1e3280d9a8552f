"""What a person sees of a run: a line a round while it goes, a table at its end."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from edgemeta.fed.lines import round_line

Record = Mapping[str, Any]


class Progress:
    """Lines on standard error: one a round, and on a terminal a moving one within the round."""

    def __init__(self, last_round: int | None) -> None:
        self.last_round, self._rounds, self._seconds = last_round, 0, 0.0
        self._moving = sys.stderr.isatty()

    def on_round(self, record: Record) -> None:
        """Show a finished round."""
        self._rounds, self._seconds = self._rounds + 1, self._seconds + record["seconds"]
        left = ""
        if self.last_round is not None and record["round"] < self.last_round:
            left = f"  {duration((self.last_round - record['round']) * self._seconds / self._rounds)} left"
        self._clear()
        click.echo(round_line(record, self.last_round) + left, err=True)

    def on_participant(self, work: Any, done: int, count: int) -> None:
        """Show how far the open round is, where lines can be written over."""
        if self._moving:
            self._clear()
            click.echo(f"round {work.round}: {work.kind}, {done} of {count} participants", err=True, nl=False)

    def _clear(self) -> None:
        if self._moving:
            click.echo("\r\x1b[K", err=True, nl=False)


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def spread_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return a finished run's accuracies as rows: mean and percentiles, before and after, known and new."""
    rows = []
    for key, who in (("evaluation", "participants"), ("evaluation_new", "new ones")):
        for when in ("before", "after"):
            scores = (summary.get(key, {}).get(when) or {}).get("accuracy")
            if scores:
                name = f"{who}, {when} adaptation"
                rows.append([name, *(f"{100 * scores[p]:.1f}%" for p in ("mean", "p10", "p50", "p90"))])
    return rows
