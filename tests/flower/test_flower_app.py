"""The app of a run on Flower as `edgemeta flower init` writes it, and what is said where Flower is not as expected."""

import ast
import tomllib
from importlib.util import find_spec

import pytest
from runs import command_line

from edgemeta.config import config_from, read_settings
from edgemeta.errors import ConfigError
from edgemeta.flower import TESTED, client_app, server_app


def test_init_writes_an_app_that_says_all_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "run.toml").write_text('data.source = "pictures"\n[[phases]]\nalgorithm = "reptile"\nrounds = 7\n')
    done = command_line("flower", "init", "app", "--config", "run.toml", "--set", "seed=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "app").iterdir()) == [
        *(".gitignore", "federation.py", "pyproject.toml", "run.toml")
    ]
    config = config_from(read_settings(tmp_path / "app" / "run.toml"))
    assert (config.seed, config.phases[0].rounds) == (5, 7)
    assert config.data.source == str(tmp_path / "pictures")  # Flower starts programs somewhere else
    made = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert made["config"]["out"] == str(tmp_path / "app" / "run")
    names = {
        name.id
        for name in ast.walk(ast.parse((tmp_path / "app" / "federation.py").read_text()))
        if isinstance(name, ast.Name)
    }
    assert {f"federation:{name}" for name in names & {"client", "server"}} == {*made["components"].values()}


def test_init_leaves_a_folder_alone_that_has_something_in_it(tmp_path):
    (tmp_path / "mine").write_text("")
    done = command_line("flower", "init", tmp_path, "--config", "demo")
    assert done.returncode == 2
    assert done.stderr == f"Error: {tmp_path} is not empty: give a folder that is, or none that exists\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(find_spec("flwr") is not None, reason="Flower is installed here")
def test_without_flower_it_is_said_how_to_install_it(tmp_path):
    for app in (client_app, lambda: server_app("demo")):
        with pytest.raises(ConfigError, match=r'Flower is not installed .*pip install "edgemeta\[flower\]"'):
            app()
    done = command_line("flower", "init", tmp_path / "app", "--config", "demo")
    assert done.returncode == 0
    assert "Flower is not installed here" in done.stderr
    asked = ("server", "--config", "demo", "--superlink", "http://127.0.0.1:8000", "--partition-id", 0)
    done = command_line(*asked, "--state", tmp_path / "site")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Flower is not installed here, and this takes flwr 1.42: install it as")
    assert not (tmp_path / "site").exists()


def test_another_version_of_flower_is_refused(tmp_path, monkeypatch):
    (tmp_path / "flwr-1.7.0.dist-info").mkdir()
    (tmp_path / "flwr-1.7.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.7.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"flwr 1.7.0 is installed, and this was tested with flwr {TESTED}: install"):
        client_app()
