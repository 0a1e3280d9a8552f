"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

threads = click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Share each step among N threads; the bits stay the same.",
)


def state(what: str) -> Callable[[Any], Any]:
    """Return the option --state, whose help says what is kept there."""
    return click.option(
        "--state",
        type=click.Path(path_type=Path),
        default="edgemeta-state",
        show_default=True,
        metavar="DIR",
        help=what,
    )


def log(command: Any) -> Any:
    """Add the options of a log to a command that goes on for long: --log-level and --log-json."""
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What is logged: this and what is worse.",
    )
    return level(click.option("--log-json", is_flag=True, help="Log a JSON object a line.")(command))
