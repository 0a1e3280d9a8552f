"""`edgemeta learn`: a device is taught from a shell."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The device's state directory."
)
@click.argument("label")
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
def learn(state: Path, label: str, images: tuple[Path, ...]) -> None:
    """Teach the device of a state directory that each IMAGE shows LABEL; it may be running, and may be offline.

    The pictures count at once; a device that is running takes them up with its next task. Where there is no device, one
    is made, which may join a gateway later.
    """
    from edgemeta.cli.report import bar
    from edgemeta.device.teach import teach

    new = not (state / "device.json").exists()
    with bar():
        count, classes = teach(state, images, label)
    if new:
        click.echo(f"{state} is a new device's state from now on", err=True)
    click.echo(f"{count} new pictures of {label}")
    click.echo(f"this device tells apart: {', '.join(classes)}" if classes else "they count when a model has come")
