"""Settings: frozen records, read from TOML and checked (`edgemeta.records`).

The names of models, learners, partitions and the like are checked where those live (`edgemeta.fed.plan` collects
them); what follows from the data (input shape, classes) is filled in there too.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgemeta.errors import ConfigError
from edgemeta.names import canonical
from edgemeta.records import number, read_record

OWN = "own"  # model.classes, where every participant has its own
PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class ModelConfig:
    """The network. What is None is taken from the data.

    classes: names (of one's own arrays, too), or how many; or "own": every participant has its own. most_classes: how
    many of its own a participant has at most.
    """

    name: str = "cnn"
    input_shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] | int | str | None = None
    loss: str = "cross-entropy"
    most_classes: int | None = number(None, 1)

    def __post_init__(self) -> None:
        if isinstance(self.classes, tuple):  # one name has one form, wherever it comes from
            object.__setattr__(self, "classes", tuple(map(canonical, self.classes)))

    @property
    def own(self) -> bool:
        """Whether every participant has classes of its own, which nobody else hears of."""
        return self.classes == OWN

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, once they are known; of own classes, which have no common ones, none."""
        return self.classes if isinstance(self.classes, tuple) else ()


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from and who has which. Shares are 0 to 1; pixel_noise is a sigma in the pixel range 0..1."""

    source: str = "synthetic"
    participants: int = number(10, 0, 100_000)  # 0: as many as join
    held_out: int = number(0, 0)
    partition: str = "shards:2"
    validation: float = number(0.0, 0, 0.9)
    label_noise: float = number(0.0, 0, 1)
    pixel_noise: float = number(0.0, 0, 1)
    noisy_participants: float = number(1.0, 0, 1)
    held_out_noise: bool = True
    new_classes: int = number(0, 0)


@dataclass(frozen=True)
class PhaseConfig:
    """One stretch of rounds with one recipe. rounds = 0, in the last phase: until stopped."""

    name: str = ""
    algorithm: str = "fedavg"
    rounds: int = number(20, 0)
    local_steps: int | None = number(None, 1)
    local_epochs: int | None = number(None, 1)
    batch_size: int = number(32, 1)
    lr: float = number(0.02, 0, above=True)
    momentum: float = number(0.0, 0, 1)
    weight_decay: float = number(0.0, 0)
    lr_decay: float = number(1.0, 0, 1, above=True)
    inner_lr: float = number(0.05, 0, above=True)
    inner_steps: int = number(1, 1)
    upload: str = "float32"
    settings: Mapping[str, float] = field(default_factory=dict)  # of the algorithm, as its row declares them


@dataclass(frozen=True)
class ServerConfig:
    """How rounds are opened and closed. What is None follows from the number of training participants."""

    fraction_fit: float = number(1.0, 0, 1, above=True)
    min_available_clients: int | None = number(None, 1)
    min_fit_clients: int | None = number(None, 1)
    round_deadline_s: float = number(600.0, 0, above=True)
    optimizer: str = "sgd"
    aggregator: str = "mean"
    optimizer_settings: Mapping[str, float] = field(default_factory=dict)
    aggregator_settings: Mapping[str, float] = field(default_factory=dict)
    clip: float | str = 5.0
    max_lag: int = number(2, 0, 100)
    selection: str = "random"
    groups: int | None = number(None, 2)


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how the global model is scored. grid: further (steps, support) pairs.

    What is None is the usual: `edgemeta.meta.adaptations` has it. episodes: how many N-way K-shot tasks of its own
    classes a participant is scored on besides, for each of `shots`. reject: the share of a device's own samples that
    its model may call none of its classes; scores are of the classes all the same.
    """

    every: int = number(5, 1)
    adapt_steps: int | None = number(None, 0)
    adapt_lr: float = number(0.05, 0, above=True)
    support: int = number(100, 1)
    grid: tuple[tuple[int, int], ...] = ()
    adaptation: str | None = None
    episodes: int = number(0, 0)
    ways: int = number(5, 2)
    shots: tuple[int, ...] = (1, 5)
    reject: float = number(0.0, 0, 0.5)


META_TRAINING = PhaseConfig(name="meta-training", algorithm="fomaml", local_steps=10)
FEDERATED = PhaseConfig(name="federated", algorithm="fedavg", local_steps=10)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result."""

    seed: int = number(0, 0, 2**63 - 1)
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    phases: tuple[PhaseConfig, ...] = (META_TRAINING, FEDERATED)
    server: ServerConfig = ServerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def config_from(settings: Mapping[str, Any]) -> RunConfig:
    """Return a checked RunConfig; raises ConfigError that lists every unknown key, wrong type and wrong value."""
    if "tune" in settings:
        raise ConfigError("the table 'tune' is for `edgemeta compare RUN.toml --out DIR`: take it out to run the rest")
    complaints: list[str] = []
    config = read_record(RunConfig, settings, "", complaints)
    for i, phase in enumerate(config.phases):
        if phase.local_steps and phase.local_epochs:
            complaints.append(f"phases.{i} has local_steps and local_epochs: give one of them")
        if phase.rounds == 0 and i < len(config.phases) - 1:
            complaints.append(f"phases.{i}.rounds is 0 (until stopped): only the last phase may be endless")
    if isinstance(config.model.classes, str) and not config.model.own:
        complaints.append(f"model.classes is '{config.model.classes}': expected a list of names, a number, or '{OWN}'")
    if not config.phases:
        complaints.append("phases is empty: give at least one")
    for i, (steps, support) in enumerate(config.evaluation.grid):
        if steps < 0 or support < 1:
            complaints.append(f"evaluation.grid.{i} is {[steps, support]}: expected steps from 0 and support from 1")
    if config.evaluation.episodes and min(config.evaluation.shots, default=0) < 1:
        complaints.append(f"evaluation.shots is {list(config.evaluation.shots)}: expected one number from 1, or more")
    held_out, participants = config.data.held_out, config.data.participants
    if held_out and not participants:
        said = (
            f"data.held_out is {held_out}, and data.participants 0: where as many as join take part, all of them train"
        )
        complaints.append(f"{said}; leave data.held_out out")
    elif held_out >= participants > 0 and not any(line.startswith("data.participants ") for line in complaints):
        complaints.append(f"data.held_out is {held_out} of {participants} participants: leave one or more to train on")
    if complaints:
        raise ConfigError("; ".join(complaints))
    return config


def read_settings(source: str | Path) -> dict[str, Any]:
    """Return the settings of a preset (by name) or a TOML file, unchecked, with phases; raises ConfigError."""
    path = Path(source)
    preset = PRESETS / f"{source}.toml"
    if not path.is_file():
        if not preset.is_file():
            known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.toml")))
            raise ConfigError(
                f"no configuration file or preset '{source}': give a path to a TOML file, or one of {known}"
            )
        path = preset
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}; expected a TOML file") from None
    return settings_in(text, path)


def settings_in(text: bytes, path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file's text, as `read_settings` does."""
    try:
        return default_settings() | tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, a number of 5,000 digits
        raise ConfigError(f"cannot read {path}: {error}; expected a TOML file") from None


def default_settings() -> dict[str, Any]:
    """Return the settings that `assign` needs to find even when nothing has set them: the list of phases."""
    return {"phases": to_dict(RunConfig())["phases"]}


def assign(settings: dict[str, Any], text: str) -> None:
    """Apply one KEY=VALUE to settings in place: dotted keys, list items by index, a TOML value or else a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{text}' is not KEY=VALUE: write for example phases.0.lr=0.05")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()
    *path, last = key.strip().split(".")
    here: Any = settings
    for part in path:
        here = _item(here, part, key) if isinstance(here, list) else here.setdefault(part, {})
        if not isinstance(here, dict | list):
            raise ConfigError(f"'{key}': '{part}' holds a value and has no keys below it")
    if isinstance(here, list):
        _item(here, last, key)
        here[int(last)] = parsed
    else:
        here[last] = parsed


def put(settings: Any, key: str, value: Any) -> None:
    """Set the value of a dotted name, which is there, in nested dicts and lists."""
    *path, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    for part in path:
        settings = settings[part]
    settings[last] = value


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return nested dicts and lists, without the settings that are None or an empty table."""
    return _plain(asdict(config))  # type: ignore[no-any-return]


def to_toml(config: RunConfig) -> str:
    """Return the configuration as TOML that `config_from` reads back as the same record."""
    settings = to_dict(config)
    lines = [f"{key} = {_toml(value)}" for key, value in settings.items() if not isinstance(value, dict | list)]
    for key, value in settings.items():
        for table in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
            lines += ["", f"[[{key}]]" if isinstance(value, list) else f"[{key}]"]
            lines += [f"{name} = {_toml(item)}" for name, item in table.items()]
    return "\n".join(lines) + "\n"


def differing(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return dotted name -> both values, None where there is none, of the settings in which configurations differ."""
    left, right = _flat(to_dict(a)), _flat(to_dict(b))
    keys = [*left, *(key for key in right if key not in left)]
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Return one line for each setting in which two configurations differ."""
    return [f"{key}: {ours!r} and {theirs!r}" for key, (ours, theirs) in differing(a, b).items()]


def _item(items: list[Any], part: str, key: str) -> Any:
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigError(f"'{key}': there is no item '{part}' in a list of {len(items)}, counted from 0")
    return items[int(part)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None and item != {}}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path[:-1]: value}
    return {key: leaf for name, item in items for key, leaf in _flat(item, f"{path}{name}.").items()}


# JSON's strings, numbers and lists are TOML's too, but for two: infinities, which are refused on reading, and the
# control character 127, which TOML wants escaped.
def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
