"""From options to a configuration, the same for `simulate` and `server`."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgemeta.config import RunConfig, assign, config_from, default_settings, read_settings
from edgemeta.errors import ConfigError


def settings_from(config: str | None, named: Mapping[str, Any], assignments: Sequence[str]) -> RunConfig:
    """Return the checked configuration; later wins: the file or preset, then the named options, then --set.

    named: "algorithm", "rounds" and dotted settings such as "data.source"; what is None was not given.
    """
    settings = read_settings(config) if config else default_settings()
    given = {key: value for key, value in named.items() if value is not None}
    phase = {key: given.pop(key) for key in ("algorithm", "rounds") if key in given}
    if phase:
        settings["phases"] = [_single_phase(settings["phases"] if config else [{}]) | phase]
    for key, value in given.items():
        *tables, name = key.split(".")
        here = settings
        for table in tables:
            here = here.setdefault(table, {})
        here[name] = value
    for assignment in assignments:
        assign(settings, assignment)
    return config_from(settings)


def _single_phase(phases: Any) -> dict[str, Any]:
    """Return the phase that --algorithm and --rounds change, without a name that no longer says what it does."""
    if not isinstance(phases, list) or len(phases) != 1 or not isinstance(phases[0], dict):
        raise ConfigError(
            "--algorithm and --rounds give a single phase, and this configuration has several: "
            "change one of them with --set, as in --set phases.0.rounds=5"
        )
    return {key: value for key, value in phases[0].items() if key != "name"}
