"""A text as a QR code in the terminal, for a phone or a board that has a camera."""

import shutil
import sys

import click

ON = "\x1b[97;40m"  # white on black, whatever the terminal's own colours are: readers want the light parts light
OFF = "\x1b[0m"


def show_qr(text: str) -> None:
    """Print a text as a QR code, two rows to a line; without the extra `qr`, and where it has no room, say so."""
    try:
        import segno
    except ImportError:
        click.echo("no QR code is shown, as that takes one more package: pip install 'edgemeta[qr]'", err=True)
        return
    import io

    code, drawn = segno.make(text, micro=False, error="L", boost_error=False), io.StringIO()
    code.terminal(drawn, border=4, compact=True)
    lines = drawn.getvalue().splitlines()
    for line in lines:
        click.echo(f"{ON}{line}{OFF}", color=True)
    room, width, height = shutil.get_terminal_size(), len(lines[0]), len(lines) + 1
    if sys.stdout.isatty() and (room.columns < width or room.lines < height):
        what = f"the code takes {width} columns and {height} lines"
        click.echo(f"{what}: enlarge the window, or make its letters smaller, and do it again", err=True)
