"""Whose run a directory holds: the configuration and the data with which it began, and nothing else goes on there.

run.toml has the configuration; data.json a fingerprint of the data, so that the same data may come by another path and
other data may not come by the same one. Directories of before have no data.json, and get one.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgemeta.config import RunConfig, config_from, differences, settings_in, to_toml
from edgemeta.data.fingerprint import FORMAT, Fingerprint
from edgemeta.errors import ConfigError
from edgemeta.reading import read_file
from edgemeta.storage import read_kept, write_atomic, write_kept

OTHERWISE = "give another folder, or the same settings to go on"


def claim(
    path: Path,
    config: RunConfig,
    data: Fingerprint | None,
    *,
    elsewhere: bool = False,
    advice: Callable[[RunConfig, RunConfig], str] = lambda _before, _asked: OTHERWISE,
) -> None:
    """Write what a new run in `path` is, or raise ConfigError unless the one there is the same.

    data: of what the run works on; None where nobody knows it, and then data.source counts as any setting does, but not
    when the data is `elsewhere`, on devices: there it means nothing. advice: what to do about settings that differ.
    """
    restore = "restore it, or remove it if the data is still what the run began with"
    kept = read_kept(path / "data.json", Fingerprint, FORMAT, restore)
    text = read_file(path / "run.toml")
    if text is not None:
        before = config_from(settings_in(text, path / "run.toml"))
        other = kept.unlike(data) if kept and data else []
        if elsewhere or (kept and data and not other):
            before = replace(before, data=replace(before.data, source=config.data.source))
        if differing := differences(before, config):
            raise ConfigError(
                f"{path} holds a run of another configuration ({'; '.join([*differing, *other])}): "
                f"{advice(before, config)}"
            )
        if other:
            raise ConfigError(
                f"{path} holds a run on other data ({'; '.join(other)}): "
                "give another folder, or the data with which it began to go on"
            )
    if data and kept != data:
        write_kept(path / "data.json", data, FORMAT)
    if text is None:  # last: from then on, both are what the run has begun with
        write_atomic(path / "run.toml", [to_toml(config).encode()])
