"""What a person sees of a run: a line a round while it goes, a table at its end."""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from edgemeta.fed.lines import round_line
from edgemeta.lengthy import told

Record = Mapping[str, Any]
SHORT_S = 2.0  # what takes no longer shows nothing
REDRAWN_S, SAID_S = 0.1, 10.0  # between two changes of the bar, and two lines where nothing can be written over
WIDTH = 24


class Bar:
    """How far a command's work is, on standard error: on a terminal a bar, elsewhere a line now and then.

    now: seconds, when the work began.
    """

    def __init__(self, now: float) -> None:
        self._moving = sys.stderr.isatty()
        self._due = now + SHORT_S

    def show(self, what: str, done: int, count: int, now: float) -> None:
        """Show that so much of a work is done."""
        if now < self._due:
            return
        self._due = now + (REDRAWN_S if self._moving else SAID_S)
        if self._moving and done == count:
            self.clear()  # a warning of what was found may come next
        elif self._moving:
            full = math.floor(WIDTH * done / count)
            write_over(f"{what} [{'#' * full}{'.' * (WIDTH - full)}] {done:,} of {count:,}")
        else:
            click.echo(f"{what}: {done:,} of {count:,}", err=True)

    def clear(self) -> None:
        """Take the bar away."""
        if self._moving:
            write_over("")


@contextmanager
def bar() -> Iterator[None]:
    """Show how far the work of this context is, once it takes longer than a person waits without asking."""
    shown = Bar(time.monotonic())
    try:
        with told(lambda what, done, count: shown.show(what, done, count, time.monotonic())):
            yield
    finally:
        shown.clear()


def write_over(text: str) -> None:
    """Write a line on a terminal in the place of the one that is there, without ending it."""
    click.echo(f"\r\x1b[K{text}", err=True, nl=False)


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
        if self._moving:
            write_over("")
        click.echo(round_line(record, self.last_round) + left, err=True)

    def on_participant(self, work: Any, done: int, count: int) -> None:
        """Show how far the open round is, where lines can be written over."""
        if self._moving:
            write_over(f"round {work.round}: {work.kind}, {done} of {count} participants")


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
