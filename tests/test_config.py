"""Settings: read, checked with every complaint at once, assigned, written and compared."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PhaseConfig,
    RunConfig,
    ServerConfig,
    assign,
    config_from,
    default_settings,
    differences,
    read_settings,
    to_dict,
    to_toml,
)
from edgemeta.errors import ConfigError
from edgemeta.records import record_from


def complaint(settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config_from(settings)
    return str(caught.value)


def test_the_defaults_are_the_promised_ones() -> None:
    config = config_from({})
    assert config == RunConfig()
    assert (config.seed, config.model.name, config.data.source, config.data.participants) == (0, "cnn", "synthetic", 10)
    assert (config.data.held_out, config.data.partition, config.data.noisy_participants) == (0, "shards:2", 1.0)
    assert [(phase.name, phase.algorithm, phase.rounds, phase.local_steps) for phase in config.phases] == [
        ("meta-training", "fomaml", 20, 10),
        ("federated", "fedavg", 20, 10),
    ]
    phase = config.phases[0]
    assert (phase.batch_size, phase.lr, phase.momentum, phase.weight_decay) == (32, 0.02, 0.0, 0.0)
    assert (phase.lr_decay, phase.inner_lr, phase.inner_steps) == (1.0, 0.05, 1)
    assert (config.server.fraction_fit, config.server.round_deadline_s) == (1.0, 600)
    assert (config.server.optimizer, config.server.aggregator) == ("sgd", "mean")
    evaluation = config.evaluation
    assert (evaluation.every, evaluation.adapt_steps, evaluation.adapt_lr) == (5, None, 0.05)
    assert (evaluation.support, evaluation.grid) == (100, ())


def test_every_complaint_is_shown_together() -> None:
    text = complaint(
        {
            "sead": 1,
            "model": {"name": 7, "input_shape": [32, "32", 3]},
            "data": {"participants": 4, "held_out": 4, "label_noise": 1.5},
            "phases": [
                {"algorithm": "fomaml", "rouds": 3, "lr": math.nan, "rounds": 0},
                {"local_steps": 3, "local_epochs": 1, "batch_size": 0},
            ],
            "server": 3,
            "evaluation": {"every": True, "grid": [[1, 2], [3]], "adapt_lr": -1},
        }
    )
    for part in (
        "unknown setting 'sead': did you mean 'seed'?",
        "model.name is 7: expected a string",
        "model.input_shape is [32, '32', 3]: expected a whole number",
        "data.label_noise is 1.5: expected at least 0 and at most 1",
        "data.held_out is 4 of 4 participants",
        "unknown setting 'phases.0.rouds': did you mean 'rounds'?",
        "phases.0.lr is nan: expected a finite number",
        "phases.0.rounds is 0 (until stopped)",
        "phases.1 has local_steps and local_epochs",
        "phases.1.batch_size is 0: expected at least 1",
        "server is 3: expected a table",
        "evaluation.every is True: expected a whole number",
        "evaluation.grid is [[1, 2], [3]]: expected a list of 2",
        "evaluation.adapt_lr is -1: expected more than 0",
    ):
        assert part in text
    assert text.count("; ") == 13


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, 0.0, -0.1, "0.1", True, None, [0.1], 10**400])
@pytest.mark.parametrize("key", ["lr", "inner_lr"])
def test_a_rate_is_a_positive_finite_number(key: str, value: Any) -> None:
    assert f"phases.0.{key} is" in complaint({"phases": [{key: value}]})
    with pytest.raises(ConfigError, match=key):  # and over the wire
        record_from(PhaseConfig, {key: value})


def test_whole_numbers_are_numbers_too() -> None:
    rate = config_from({"phases": [{"lr": 1}]}).phases[0].lr
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phases": []}, "phases is empty"),
        ({"phases": {}}, "phases is {}: expected a list"),
        ({"phases": [3]}, "phases.0 is 3: expected a table"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"seed": 1.0}, "expected a whole number"),
        ({"model": {"classes": 1.5}}, "expected a list or expected a whole number"),
        ({"data": {"participants": -1}}, "data.participants is -1: expected at least 0 and at most 100000"),
        ({"data": {"participants": 0, "held_out": 1}}, "as many as join take part, all of them train"),
        ({"data": {"source": "\ud800"}}, "UTF-8"),
        ({"evaluation": {"grid": [[5, 100], [-1, 10]]}}, r"evaluation.grid.1 is [-1, 10]"),
        ({"evaluation": {"grid": [[5, 0]]}}, r"evaluation.grid.0 is [5, 0]"),
        ({"zzz": 1}, "known are seed, model, data, phases, server, evaluation"),
        ([], "the configuration is []: expected a table"),
    ],
)
def test_what_cannot_be_is_refused(settings: Any, message: str) -> None:
    assert message in complaint(settings)


def test_a_refused_number_of_participants_is_not_compared_with() -> None:
    assert "held_out" not in complaint({"data": {"participants": -1, "held_out": 20}})


def test_assign() -> None:
    settings: dict[str, Any] = default_settings()
    for text in (
        "phases.0.lr=0.5",
        "phases.1.algorithm=reptile",
        "data.partition=dirichlet:0.3",
        "data.source=/pictures/a=b",
        "evaluation.grid=[[1, 10], [5, 100]]",
        "evaluation.grid.1.0=7",
        'model.name = "mlp"',
        "model.classes = ['a', 'b']",
        " seed = 3 ",
        "server.optimizer = adam ",
    ):
        assign(settings, text)
    config = config_from(settings)
    assert (config.phases[0].lr, config.phases[0].algorithm) == (0.5, "fomaml")  # the rest of a phase stays
    assert (config.phases[1].algorithm, config.phases[1].lr) == ("reptile", 0.02)
    assert (config.data.partition, config.data.source) == ("dirichlet:0.3", "/pictures/a=b")
    assert config.evaluation.grid == ((1, 10), (7, 100))
    assert (config.model.name, config.model.classes, config.seed) == ("mlp", ("a", "b"), 3)
    assert config.server.optimizer == "adam"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phases.0.lr", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("phases.2.lr=1", "no item '2' in a list of 2, counted from 0"),
        ("phases.-1.lr=1", "no item '-1'"),
        ("phases.first.lr=1", "no item 'first'"),
        ("phases.0.lr.x=1", "'lr' holds a value"),
        ("phases.7=1", "no item '7'"),
    ],
)
def test_assignments_that_lead_nowhere_are_refused(text: str, message: str) -> None:
    settings = default_settings()
    assign(settings, "phases.0.lr=0.1")
    with pytest.raises(ConfigError, match=message):
        assign(settings, text)


def test_assigning_an_unknown_or_a_hostile_value_is_found_on_checking() -> None:
    settings = default_settings()
    for text in ("phases.0.lr=nan", "phases.1.lr=" + "9" * 5000, "seed=" + "[" * 50_000, "model.nam=x"):
        assign(settings, text)
    text = complaint(settings)
    assert "phases.0.lr is nan" in text
    assert "phases.1.lr is" in text
    assert "did you mean 'name'" in text


def test_a_file_is_read_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('seed = 4\n[[phases]]\nalgorithm = "fedavg"\nrounds = 3\n')
    config = config_from(read_settings(path))
    assert (config.seed, len(config.phases), config.phases[0].rounds) == (4, 1, 3)
    path.write_text("seed = 5\n")
    assert config_from(read_settings(str(path))).phases == RunConfig().phases
    for content in (b"seed = ", b"\xff\xfe", b"seed = 1" + b"0" * 5000, b"seed = " + b"[" * 50_000):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"cannot read .*run\.toml"):
            read_settings(path)
    for missing in (tmp_path / "missing.toml", tmp_path, "no-such-preset"):
        with pytest.raises(ConfigError, match="no configuration file or preset"):
            read_settings(missing)


def rates(low: float, high: float, above: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=above, allow_nan=False)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
optional_counts = st.none() | st.integers(1, 10**6)
tables = st.dictionaries(texts, rates(0, 1e300), max_size=3)
phases = st.builds(
    PhaseConfig,
    texts,
    texts,
    st.integers(1, 10**9),
    optional_counts,
    st.none(),
    st.integers(1, 10**9),
    rates(0, 1e300, True),
    rates(0, 1),
    rates(0, 1e300),
    rates(0, 1, True),
    rates(0, 1e300, True),
    st.integers(1, 100),
    texts,
    tables,
)
configs = st.builds(
    RunConfig,
    st.integers(0, 2**63 - 1),
    st.builds(
        ModelConfig,
        texts,
        st.none() | st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple),
        st.none() | st.integers() | st.lists(texts, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(DataConfig, texts, st.integers(10, 1000), st.integers(0, 9), texts, rates(0, 0.9), *[rates(0, 1)] * 3),
    st.lists(phases, min_size=1, max_size=3).map(tuple),
    st.builds(
        ServerConfig,
        rates(0, 1, True),
        optional_counts,
        optional_counts,
        rates(0, 1e300, True),
        *[texts, texts, tables, tables],
    ),
    st.builds(
        EvaluationConfig,
        st.integers(1, 99),
        st.integers(0, 99),
        rates(0, 1e300, True),
        st.integers(1, 99),
        st.lists(st.tuples(st.integers(0, 99), st.integers(1, 999)), max_size=3).map(tuple),
    ),
)


@given(configs)
def test_what_is_written_as_toml_is_read_back_the_same(config: RunConfig) -> None:
    assert config_from(tomllib.loads(to_toml(config))) == config
    assert config_from(to_dict(config)) == config


@given(configs, configs)
def test_differences_are_empty_for_equal_configurations_only(a: RunConfig, b: RunConfig) -> None:
    assert differences(a, a) == []
    assert bool(differences(a, b)) == (to_dict(a) != to_dict(b))


def test_differences_name_each_setting() -> None:
    a = config_from({"seed": 1, "phases": [{"lr": 0.1}]})
    b = config_from({"seed": 2, "phases": [{"lr": 0.2}, {}], "evaluation": {"grid": [[1, 2]]}})
    lines = differences(a, b)
    assert "seed: 1 and 2" in lines
    assert "phases.0.lr: 0.1 and 0.2" in lines
    assert "phases.1.algorithm: None and 'fedavg'" in lines
    assert "evaluation.grid.0.1: None and 2" in lines
    assert not any("data" in line for line in lines)
