"""The pages of settings, of commands and of boards' limits: all is there as the code has it, and examples run."""

import ast
import math
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.testing import CliRunner
from commented import cells

from edgemeta import api
from edgemeta.cli import _status, commands
from edgemeta.cli.settings import settings_from
from edgemeta.config import (
    PRESETS,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PhaseConfig,
    RunConfig,
    ServerConfig,
    config_from,
)
from edgemeta.data import parse_partition
from edgemeta.device.profile import Profile
from edgemeta.errors import ConfigError
from edgemeta.fed.aggregate import AGGREGATORS
from edgemeta.fed.optimizers import OPTIMIZERS
from edgemeta.fed.plan import CUSTOM
from edgemeta.fed.selection import SELECTIONS
from edgemeta.fed.upload import UPLOADS
from edgemeta.meta import ADAPTATIONS, LEARNERS
from edgemeta.nn import LOSSES, MODELS, build

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()
BOARDS = (ROOT / "devices" / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SMALL,) = [text for kind, text in BLOCKS if kind == "toml"]
TABLES = {
    "`[model]`": ModelConfig,
    "`[data]`": DataConfig,
    "`[[phases]]`": PhaseConfig,
    "`[server]`": ServerConfig,
    "`[evaluation]`": EvaluationConfig,
}
SECTIONS = [title.strip("`[]") for title in TABLES]
TYPES = {
    bool: "true or false",
    str: "text",
    int: "whole number",
    float: "number",
    tuple[int, ...]: "list of whole numbers",
    tuple[str, ...]: "list of texts",
    tuple[tuple[int, int], ...]: "list of pairs of whole numbers",
    Mapping[str, float]: "table of numbers",
}


def named(section: str) -> dict[str, list[str]]:
    """Return what a table says of each name in backticks."""
    return {row[0].strip("`"): row[1:] for row in cells(section)}


def in_words(hint: Any) -> str:
    kinds = [kind for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    return TYPES[hint] if hint in TYPES else ", or a ".join(TYPES[kind] for kind in kinds)


def range_of(limits: Mapping[str, Any]) -> str:
    """Return a range as the pages say it, by what `edgemeta.records.number` notes."""
    if not limits:
        return ""
    low, high = f"{limits['low']:,}", f"{limits['high']:,}"
    if limits["above"]:
        return f"above {low}" if limits["high"] == math.inf else f"above {low}, to {high}"
    return f"{low} and more" if limits["high"] == math.inf else f"{low} to {high}"


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("page", "section", "record"),
    [*((PAGE, *of) for of in [("At the top", RunConfig), *TABLES.items()]), (BOARDS, "Profiles", Profile)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_key_is_on_its_page_with_type_range_and_default(page: str, section: str, record: type) -> None:
    said = {row[0].strip("`"): row[1:] for row in cells(section, page) if len(row) == 5}
    entries, hints = [entry for entry in fields(record) if entry.name not in SECTIONS], get_type_hints(record)
    assert list(said) == [entry.name for entry in entries]
    for entry in entries:
        key = entry.name
        kind, limits, default, why = said[key]
        assert kind == in_words(hints[key]), key
        assert limits.startswith("one of [these]") or limits == range_of(entry.metadata), key
        value = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        if value is None:
            assert default, key
            assert "`" not in default, key
        else:
            found = tomllib.loads(f"value = {default.strip('`')}")["value"]
            assert (found, type(found)) == (plain(value), type(plain(value))), key
        assert len(why) > 20, key


def test_the_tables_of_the_file_are_the_sections_of_the_page() -> None:
    assert re.findall(r"^## (`\[.*\]`)$", PAGE, re.MULTILINE) == list(TABLES)
    phases = re.findall(r"(\d+)(?: rounds)? of `(\w+)`\s+called \"(.*?)\"", PAGE)
    assert phases == [(str(phase.rounds), phase.algorithm, phase.name) for phase in RunConfig().phases]


def settings_in(cell: str) -> dict[str, tuple[str, Any]]:
    """Return name -> (range, default) of the settings in a cell."""
    return {name: (limits, float(default)) for name, limits, default in re.findall(r"`(\w+)` \((.*?); `(.*?)`\)", cell)}


@pytest.mark.parametrize(
    ("section", "table"),
    [("Algorithms", LEARNERS), ("Server optimisers", OPTIMIZERS), ("Aggregators", AGGREGATORS)],
)
def test_every_variant_is_on_the_page_with_its_settings_and_paper(section: str, table: Mapping[str, Any]) -> None:
    said = named(section)
    assert list(said) == list(table)
    for name, row in table.items():
        settings, paper = said[name]
        assert paper == row.paper
        assert settings_in(settings) == {f.name: (range_of(f.metadata), f.default) for f in fields(row.settings)}
        assert bool(fields(row.settings)) == (settings != "none")


def test_every_other_name_is_on_the_page() -> None:
    sizes = {name: f"{build(name, (32, 32, 3), 10).layout.size:,}" for name in MODELS}
    assert {name: row[0] for name, row in named("Models").items()} == sizes | {CUSTOM: "its own"}
    labels = {
        name: "own classes" if row.embeds else "classes" if row.classifies else "targets"
        for name, row in LOSSES.items()
    }
    assert {name: row[0] for name, row in named("Losses").items()} == labels
    costs = {name: [row.cost, row.paper] for name, row in ADAPTATIONS.items()}
    assert {name: row[1:] for name, row in named("Adaptations").items()} == costs
    assert {name: row[0] for name, row in named("Uploads").items()} == {name: row.what for name, row in UPLOADS.items()}
    papers = {name: row.paper for name, row in SELECTIONS.items()}
    assert {name: row[1] for name, row in named("Selections").items()} == papers
    assert set(named("Presets")) == {path.stem for path in PRESETS.glob("*.toml")}
    schemes = re.findall(r"`([a-z:0-9.]+)`", "".join(map(str, cells("Partitions"))))
    assert [parse_partition(scheme) for scheme in schemes] == [
        ("iid", None),
        ("dirichlet", 0.3),
        ("shards", 2),
        ("natural", None),
    ]


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "devices" / "README.md"):
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
            to = page.parent / target if target else page
            assert to.exists(), f"{page.name}: {target}"
            titles = re.findall(r"^#+ (.*)$", to.read_text(), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in slugs, f"{page.name}: {target}#{anchor}"


# How settings are given.


class Prepared(Exception):
    """Says which configuration a command has made of its options, and ends it."""


def configuration_of(command: str, *options: str) -> RunConfig:
    with pytest.MonkeyPatch.context() as patch:

        def prepare(config: RunConfig, *_: Any, **__: Any) -> None:
            raise Prepared(config)

        patch.setattr(api, "prepare", prepare)
        found = CliRunner().invoke(commands, [command, *options]).exception
    assert isinstance(found, Prepared), found
    config: RunConfig = found.args[0]
    return config


def test_every_option_that_is_a_setting_is_on_the_page() -> None:
    given: dict[str, Any] = {"--data": "x", "--partition": "iid", "--algorithm": "reptile"}
    said = [
        (option.strip("`"), key.strip("`"), of)
        for option, key, of in re.findall(r"^   \| (`--.*?) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    ]
    for option, key, of in said:
        for command in re.findall("`(.*?)`", of):
            found: Any = configuration_of(command, option, given.get(option, "3"))
            for step in key.split("."):
                found = found[int(step)] if step.isdecimal() else getattr(found, step)
            assert found == given.get(option, 3), f"{command} {option}"
    others = {"--config", "--set", "--init", "--out", "--jobs", "--threads"}  # --set is said below the table
    options = {option for parameter in commands.commands["simulate"].params for option in parameter.opts}
    assert {option for option, _, of in said if "`simulate`" in of} == options - others


def test_a_single_phase_by_options(tmp_path: Path) -> None:
    assert configuration_of("simulate", "--rounds", "3").phases == (PhaseConfig(rounds=3),)
    (tmp_path / "one.toml").write_text('[[phases]]\nname = "mine"\nlr = 0.5\n')
    one = configuration_of("simulate", "--config", str(tmp_path / "one.toml"), "--algorithm", "reptile")
    assert one.phases == (PhaseConfig(algorithm="reptile", lr=0.5),)


def test_what_is_set_on_the_page_is_what_is_meant() -> None:
    (shown,) = [text for kind, text in BLOCKS if kind == "sh"]
    lines = [shlex.split(line) for line in shown.splitlines()]
    assert all(words[::2] == ["--set"] * (len(words) // 2) for words in lines)
    seed, rate, partition, classes, grid, optimizer, phases = (settings_from(None, {}, line[1::2]) for line in lines)
    assert seed.seed == 3
    assert [phase.lr for phase in rate.phases] == [0.02, 0.05]
    assert partition.data.partition == "dirichlet:0.3"
    assert classes.model.classes == ("cup", "door")
    assert grid.evaluation.grid == ((1, 10), (10, 100))
    assert (optimizer.server.optimizer, optimizer.server.optimizer_settings) == ("adam", {"lr": 0.01})
    assert phases.phases == (PhaseConfig(algorithm="reptile", rounds=5),)
    quoted, bare = (shlex.split(text)[1] for text in re.findall(r"`(--set data\.source=.*?)`", PAGE))
    assert settings_from(None, {}, [quoted]).data.source == "2026"
    with pytest.raises(ConfigError, match=r"data\.source is 2026: expected a string"):
        settings_from(None, {}, [bare])


def test_the_examples_run_and_say_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    (session,) = [text for kind, text in BLOCKS if kind == "console"]
    for example in session.removeprefix("$ ").split("\n$ "):
        command, *shown = example.splitlines()
        status = _status(shlex.split(command)[1:])
        printed = "".join(capsys.readouterr())
        assert status == (2 if "Error" in example else 0), printed
        assert set(shown) <= set(printed.splitlines()), printed
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    (call,) = re.findall(r"`edgemeta\.simulate\((\{.*\})\)`", PAGE)
    assert config_from(ast.literal_eval(call)).data.participants == 4


# Commands.


def synopsis(path: tuple[str, ...], command: click.Command) -> str:
    words = ["edgemeta", *path]
    for parameter in sorted(command.params, key=lambda parameter: parameter.param_type_name == "option"):
        choices = getattr(parameter.type, "choices", ())
        value = parameter.metavar or "|".join(choices) or str(parameter.name).upper()
        if isinstance(parameter, click.Option):
            option = parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {value}"
            value = (option if parameter.required else f"[{option}]") + "..." * parameter.multiple
        words.append(value)
    return " ".join(words)


def every_command(group: Any = commands, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name), command


def test_every_command_and_every_option_is_on_a_page() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    shown = re.findall(r"^ {4}(edgemeta .*(?:\n {5,}.*)*)", page, re.MULTILINE)
    assert sorted(" ".join(text.split()) for text in shown) == sorted(synopsis(*found) for found in every_command())
