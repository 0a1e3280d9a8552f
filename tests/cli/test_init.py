"""The files to begin with: they say what the page of settings says, and run as they are."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from commented import ROOT, commented

from edgemeta.cli import _status
from edgemeta.cli.init import FILES, HERE
from edgemeta.config import OWN, config_from


def test_the_file_says_what_the_page_says():
    assert (HERE / FILES["run.toml"]).read_text() == commented()  # after a change: python tests/commented.py
    assert (HERE / FILES["button.py"]).read_bytes() == (ROOT / "devices" / "button.py").read_bytes()


def test_what_is_taken_away_is_a_default_and_what_is_set_is_meant():
    text = commented()
    config = config_from(tomllib.loads(text))
    assert (config.model.classes, config.data.held_out, config.phases[0].lr) == (OWN, 2, 0.1)
    every, count = re.subn(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)
    assert count > 25
    assert config_from(tomllib.loads(every)) == config


@pytest.mark.slow
def test_what_is_written_runs_by_the_command_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _status(["init"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("edgemeta simulate --config run.toml --out run\n", "wrote run.toml\n")
    short = ["--set", "phases.0.rounds=1", "--set", "phases.0.local_steps=1", "--data", "synthetic:samples=200"]
    assert _status([*shlex.split(said.out)[1:], *short]) == 0
    assert Path("run/model.safetensors").exists()


def test_nothing_is_written_over(tmp_path, capsys):
    folder = tmp_path / "new" / "one"
    assert _status(["init", str(folder), "--device"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["button.py", "run.toml"]
    capsys.readouterr()
    (folder / "run.toml").unlink()
    (folder / "button.py").write_text("mine")
    assert _status(["init", str(folder), "--device"]) == 2
    assert capsys.readouterr().err.startswith(f"Error: {folder / 'button.py'} exists, and nothing is written over")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("button.py", "mine")]
