"""What is compared: configurations under names, each as it is written or as a baseline on the same budget."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig, assign, config_from, read_settings, to_dict
from edgemeta.errors import ConfigError
from edgemeta.records import number, read_record

FIXED = ("seed", "data.")  # what no method may choose for itself


class Kind(StrEnum):
    """What is done with a configuration."""

    RUN = "run"  # as it is written
    FEDAVG = "fedavg"  # plain FedAvg on its budget of gradients
    ALONE = "alone"  # everyone alone, as long as it trains each of them


@dataclass(frozen=True)
class Tune:
    """How settings are chosen: each combination is scored on a share of the training data that is set aside.

    grid: dotted key -> its candidates.
    """

    validation: float = number(0.2, 0, 0.9, above=True)
    grid: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One of the things compared. config: as its file says it, before the data is known."""

    name: str
    kind: Kind
    config: RunConfig
    tune: Tune = Tune()

    def candidates(self) -> list[tuple[dict[str, Any], RunConfig]]:
        """Return every combination of the settings to be chosen, and the configuration that it makes."""
        found: list[tuple[dict[str, Any], RunConfig]] = [({}, self.config)]
        for key, values in self.tune.grid.items():
            found = [
                (chosen | {key: value}, with_setting(config, key, value))
                for chosen, config in found
                for value in values
            ]
        return found


def with_setting(config: RunConfig, key: str, value: Any) -> RunConfig:
    """Return a configuration with one setting changed, by its dotted key; raises ConfigError."""
    settings = to_dict(config)
    assign(settings, f"{key}=0")  # finds the place, and complains where there is none
    *path, last = key.split(".")
    here: Any = settings
    for part in path:
        here = here[int(part)] if isinstance(here, list) else here[part]
    here[int(last) if isinstance(here, list) else last] = value
    return config_from(settings)


def entries_from(sources: Sequence[str], data: str | None, assignments: Sequence[str]) -> list[Entry]:
    """Return what is to be compared, by RUN.toml or a preset's name, each perhaps behind `fedavg:` or `alone:`.

    data: for all, in the place of their data.source; assignments: KEY=VALUE, for all. Raises ConfigError for what no
    run can be made of, a run without an end, two entries that are one, and settings that may not be tuned.
    """
    split = [_kind_of(source) for source in sources]
    names = _names([source for _, source in split])
    entries = [_entry(name, kind, source, data, assignments) for name, (kind, source) in zip(names, split, strict=True)]
    for i, entry in enumerate(entries):
        if any(entry.name == other.name for other in entries[:i]):
            raise ConfigError(f"'{sources[i]}' is given twice: give every run once")
    return entries


def _kind_of(source: str) -> tuple[Kind, str]:
    prefix, colon, rest = source.partition(":")
    if colon and prefix in list(Kind) and not Path(source).exists():
        return Kind(prefix), rest
    return Kind.RUN, source


def _names(sources: Sequence[str]) -> list[str]:
    """Return what files and presets are called: their names, with their folders' where two files have the same."""
    stems = {source: Path(source).stem if Path(source).suffix else source.replace("/", "-") for source in sources}
    return [
        Path(source).absolute().parent.name + "-" + stem if list(stems.values()).count(stem) > 1 else stem
        for source, stem in ((source, stems[source]) for source in sources)
    ]


def _entry(name: str, kind: Kind, source: str, data: str | None, assignments: Sequence[str]) -> Entry:
    settings, complaints = read_settings(source), list[str]()
    tune = read_record(Tune, settings.pop("tune", {}), "tune.", complaints)
    try:
        for assignment in [*([] if data is None else [f"data.source={json.dumps(data)}"]), *assignments]:
            assign(settings, assignment)
        if complaints:
            raise ConfigError("; ".join(complaints))
        config = config_from(settings)
        if config.phases[-1].rounds == 0:
            raise ConfigError("the last phase has rounds = 0 (until stopped): give it an end, to be compared")
        for key, values in tune.grid.items():
            if key.startswith(FIXED) or not values:
                raise ConfigError(
                    f"tune.grid has '{key}' = {values}: expected settings of method, each with candidates"
                )
            for value in values:
                with_setting(config, key, value)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return Entry(name if kind is Kind.RUN else f"{name} ({kind})", kind, config, tune)


def asked(entry: Entry, seed: int) -> dict[str, Any]:
    """Return what decides a row, for a comparison that goes on."""
    settings = to_dict(replace(entry.config, seed=seed))
    return {"kind": str(entry.kind), "settings": settings, "tune": asdict(entry.tune) if entry.tune.grid else {}}
