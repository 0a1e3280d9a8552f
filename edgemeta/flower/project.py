"""What `edgemeta flower init` writes: a run as a Flower app, which `flwr run` starts."""

import json
from dataclasses import replace
from pathlib import Path

from edgemeta import disk
from edgemeta.config import RunConfig, to_toml
from edgemeta.errors import ConfigError
from edgemeta.reading import exists, names
from edgemeta.storage import storing, write_atomic

PYPROJECT = """\
[build-system]
requires = ["setuptools>=69"]
build-backend = "setuptools.build_meta"

[project]
name = "edgemeta-run"
version = "1.0.0"
description = "A run of edgemeta on Flower"
license = "Apache-2.0"
dependencies = []   # edgemeta[flower] is installed beside SuperLink and SuperNodes

[tool.flwr.app]
publisher = "edgemeta"

[tool.flwr.app.components]
serverapp = "federation:server"
clientapp = "federation:client"

[tool.flwr.app.config]
out = {out}   # the run directory, on the SuperLink's machine: one that exists goes on
"""

FEDERATION = '''\
"""What `edgemeta simulate --config run.toml` does, by a SuperLink and its SuperNodes."""

from pathlib import Path

from edgemeta.flower import client_app, server_app

client = client_app()
server = server_app(Path(__file__).with_name("run.toml"))
'''


def write_project(folder: Path, config: RunConfig) -> None:
    """Write the app of a run into an empty or absent folder. Raises ConfigError where it is neither, StorageError.

    A path of the run's data becomes absolute, as nobody knows in which folder Flower starts programs.
    """
    if exists(folder) and names(folder):
        raise ConfigError(f"{folder} is not empty: give a folder that is, or none that exists")
    with storing(folder):
        disk.make_folder(folder, named=True)
    source = config.data.source
    if exists(Path(source)):
        config = replace(config, data=replace(config.data, source=str(Path(source).absolute())))
    out = str((folder / "run").absolute())
    files = {
        ".gitignore": "/run/\n",  # what git ignores, Flower does not send to its nodes
        "run.toml": to_toml(config),
        "federation.py": FEDERATION,
        "pyproject.toml": PYPROJECT.replace("{out}", json.dumps(out)),
    }
    for name, text in files.items():
        write_atomic(folder / name, [text.encode()])
