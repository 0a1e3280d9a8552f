"""`edgemeta flower`: the same run on Flower, where one gateway is outgrown."""

from pathlib import Path

import click

from edgemeta.cli.settings import settings_from


@click.group()
def flower() -> None:
    """The same run on Flower (an extra: pip install "edgemeta[flower]")."""


@flower.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--config", required=True, metavar="RUN.toml|PRESET", help="A configuration file, or a preset's name.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as in phases.0.lr=0.05.")
def init(folder: Path, config: str, assignments: tuple[str, ...]) -> None:
    """Write a run as a Flower app into DIR, which `flwr run DIR` starts."""
    from edgemeta.errors import ConfigError
    from edgemeta.flower import check_flower
    from edgemeta.flower.project import write_project

    write_project(folder, settings_from(config, {}, assignments))
    click.echo(f"{folder}: 'flwr run {folder}' starts it; its run directory will be {(folder / 'run').absolute()}")
    try:
        check_flower()
    except ConfigError as error:
        click.echo(f"{error}, before that", err=True)
