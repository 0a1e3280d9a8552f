"""Options that several commands have."""

import click

threads = click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Share each step among N threads; the bits stay the same.",
)
