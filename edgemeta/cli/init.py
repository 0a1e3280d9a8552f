"""`edgemeta init`: the files to begin with."""

from pathlib import Path

import click

HERE = Path(__file__).parent
FILES = {"run.toml": "run.toml", "button.py": "button.txt"}  # what is written -> where it lies beside this module


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="[DIR]", default=".")
@click.option("--device", is_flag=True, help="Also a firmware script, button.py: two buttons teach a board.")
def init(folder: Path, device: bool) -> None:
    """Write a configuration to begin with, run.toml, in which each setting says what it is.

    It is a whole run, on built-in data. No file that is there is written over.
    """
    from edgemeta import disk
    from edgemeta.errors import InputError
    from edgemeta.reading import exists
    from edgemeta.storage import storing, write_atomic

    paths = [folder / name for name in FILES if device or name != "button.py"]
    if there := [str(path) for path in paths if exists(path)]:
        raise InputError(f"{' and '.join(there)} exists, and nothing is written over: give another folder, or move it")
    with storing(folder):
        disk.make_folder(folder, named=True)
    for path in paths:
        write_atomic(path, [(HERE / FILES[path.name]).read_bytes()])
        click.echo(f"wrote {path}", err=True)
    click.echo(f"edgemeta simulate --config {paths[0]} --out {folder / 'run'}")
    if device:
        click.echo(f"python3 {paths[1]} --pictures {folder / 'pictures'} --state {folder / 'board'}")
