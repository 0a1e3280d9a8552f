"""Every command that a page shows is one, with its options; those of the README run, and its Python does."""

import re
import runpy
import shlex
import tomllib
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import pytest
from commented import commented
from PIL import Image
from processes import write_config

from edgemeta.bench.loopback import ended, start
from edgemeta.cli import _status, commands

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")} | {
    path: (ROOT / path).read_text() for path in ("README.md", "CONTRIBUTING.md", "devices/README.md")
}
README = PAGES["README.md"]
DATA = "synthetic:samples=120,size=8"
SMALL = {"phases.0.rounds": 1, "phases.0.local_steps": 1, "model.name": "mlp", "model.input_shape": [8, 8, 3]}
SHORT = [word for key, value in {**SMALL, "data.source": DATA}.items() for word in ("--set", f"{key}={value}")]
FEW = ["--set", "data.participants=4", "--set", "data.held_out=1"]
PICTURES = {"my cup": (200, 40, 40), "the door": (40, 40, 200)}


def shown(page: str) -> list[str]:
    """Return the commands that have a line of their own, as they stand there; no synopses."""
    lines = re.findall(r"^(?: {4})?(?:\$ )?(edgemeta [a-z].*)$", page, re.MULTILINE)
    return [line for line in lines if not re.search(r"\[|\.\.\.| [A-Z]+$", line)]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if shown(page)])
def test_every_command_that_is_shown_is_one(name):
    for line in shown(PAGES[name]):
        command, words = commands, words_of(line)
        while isinstance(command, click.Group) and words:
            command, words = command.commands[words[0]], words[1:]
        command.make_context("edgemeta", words)  # which looks at all options, and runs nothing


def test_every_command_that_is_named_is_one():
    named = {word for page in PAGES.values() for word in re.findall(r"`edgemeta ([a-z][a-z-]*)", page)}
    assert len(named) > 15
    assert named <= set(commands.commands)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the pictures that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label, colour in PICTURES.items():
        folder = tmp_path / "things" / label
        folder.mkdir(parents=True)
        for k in range(1, 7):
            noise = rng.integers(-30, 30, (40, 40, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{k}.jpg")
        for k in (1, 2):
            (tmp_path / f"{label.split()[1]}{k}.jpg").write_bytes((folder / f"{k}.jpg").read_bytes())
    (tmp_path / "new.jpg").write_bytes((tmp_path / "things" / "the door" / "6.jpg").read_bytes())
    return tmp_path


@pytest.mark.slow
def test_the_ten_lines_of_python_tell_things_apart(desk, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    (desk / "ten_lines.py").write_text(program)
    runpy.run_path("ten_lines.py")
    assert capsys.readouterr().out == "the door\n"


@pytest.mark.slow
def test_the_page_on_python_runs(desk, capsys):
    *programs, firmware = re.findall(r"```python\n(.*?)```", PAGES["python.md"], re.DOTALL)
    settings = tomllib.loads(commented())  # the page's run.toml is what `edgemeta init` writes
    settings["data"] |= {"source": "synthetic:samples=200"}
    settings["phases"][0] |= {"rounds": 1, "local_steps": 1}
    write_config(desk, settings)
    (desk / "page.py").write_text("\n".join(programs))
    names = runpy.run_path("page.py")
    assert names["personal"].classes == ("cup", "door")
    assert names["probabilities"].shape == (4, 2)
    compile(firmware, "python.md", "exec")  # which has no end


@pytest.mark.slow
def test_the_commands_of_the_readme_run(desk, capsys):
    lines = [words_of(line) for line in shown(README)]
    served = [words for words in lines if "--join" not in words and "0.0.0.0" not in words]
    for words in served:
        if words[0] in ("teach", "server", "client", "compare"):  # which have tests of their own, or come below
            continue
        short = [*SHORT, *FEW] if words[0] == "simulate" else []
        assert _status([*words, *short]) == 0, (words, capsys.readouterr().err)
        printed = capsys.readouterr().out
        if words[0] == "predict":
            assert re.search(r"(my cup|the door)", printed)[0] == "the door", printed
    assert "BEGIN CERTIFICATE" in (desk / "kitchen-cam.join").read_text()
    with ExitStack() as stack:
        (gateway,) = (words for words in served if words[0] == "server")
        log, plain = desk / "log", ["--state", "plain", "--port", "0", *SHORT]
        server = stack.enter_context(ended(start(*gateway, *plain, log=log)))[0]
        url = server.stdout.readline().split()[-1]
        instead = {"http://127.0.0.1:8742": url, "synthetic:samples=2000": DATA}
        clients = [[instead.get(word, word) for word in words] for words in served if words[0] == "client"]
        devices = stack.enter_context(ended(*(start(*words, log=log) for words in clients)))
        assert [device.wait(60) for device in devices] == [0, 0], log.read_text()
    assert (desk / "board-2" / "personal.safetensors").exists()
