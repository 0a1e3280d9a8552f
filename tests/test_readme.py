"""What the README and the demo promise."""

import re
from pathlib import Path

import click
import pytest
from runs import TINY

from edgemeta.cli import commands
from edgemeta.cli.demo import _over_http, _things_of_its_own
from edgemeta.cli.report import Progress
from edgemeta.config import config_from, to_toml
from edgemeta.errors import EdgemetaError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_command_that_is_shown_exists():
    shown = set(re.findall(r"(?:^|\$ |    |`)edgemeta ([a-z]+)", README, re.MULTILINE))
    assert {"simulate", "server", "client", "adapt", "predict"} <= shown
    assert shown <= set(commands.commands)


def test_every_option_that_is_shown_exists():
    for command, rest in re.findall(r"^ +(?:\$ )?edgemeta ([a-z]+)(.*)$", README, re.MULTILINE):
        found = commands.commands[command]
        if isinstance(found, click.Group):
            found = found.commands[rest.split()[0]]
        known = {option for parameter in found.params for option in parameter.opts}
        for option in re.findall(r"(--[a-z-]+)", rest):
            assert option in known, f"edgemeta {command} {option}"


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_command_has_help_and_every_option_too():
    for name, command in commands.commands.items():
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts[0]}"


@pytest.mark.slow
def test_the_demo_runs_a_gateway_and_devices(tmp_path, capsys):
    (tmp_path / "run.toml").write_text(to_toml(config_from(TINY)))
    summary = _over_http(tmp_path, 4, TINY["data"]["source"], Progress(4))
    assert summary["rounds"] == 4
    shown = capsys.readouterr().err
    assert "gateway: http://127.0.0.1:" in shown
    assert "round 4/4" in shown


@pytest.mark.slow
def test_the_demo_has_new_devices_name_things_of_their_own():
    data = {"source": "synthetic:samples=400,size=8", "participants": 4, "held_out": 1, "partition": "iid"}
    settings = TINY | {"data": data, "phases": TINY["phases"][:1]}
    shares = _things_of_its_own(config_from(settings), jobs=1)
    assert list(shares) == ["protonet", "fedavg, the same adaptation"]
    for share in shares.values():
        assert 0.34 < share < 1.0  # better than by chance, and not for sure


@pytest.mark.slow
def test_a_demo_whose_device_fails_says_why(tmp_path):
    (tmp_path / "run.toml").write_text(to_toml(config_from(TINY)))
    with pytest.raises(EdgemetaError, match="no-such-folder"):
        _over_http(tmp_path, 4, "no-such-folder", Progress(4))
