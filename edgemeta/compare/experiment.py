"""Running a comparison: every entry at every seed, one after the other, going on wherever it was stopped.

Seeds come first, so that a comparison that is stopped early has all of its entries at the first seeds.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from edgemeta import disk
from edgemeta.compare.entries import Entry, asked
from edgemeta.compare.rows import FORMAT, Row, curve_of, history_in, kept, row_path
from edgemeta.compare.tuning import Chosen, choose
from edgemeta.compare.work import Place, every_score, prepared
from edgemeta.config import RunConfig, config_from, differences, to_dict
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import ConfigError, DivergedError
from edgemeta.storage import storing, write_kept

logger = logging.getLogger("edgemeta")


def pairs(entries: Sequence[Entry], seeds: Callable[[Entry], Sequence[int]]) -> list[tuple[Entry, int]]:
    """Return what is run, in this order; seeds: of an entry, as many for each."""
    each = [seeds(entry) for entry in entries]
    return [(entry, each[i][j]) for j in range(max(map(len, each))) for i, entry in enumerate(entries)]


def unfinished(work: Sequence[tuple[Entry, int]], out: Path) -> list[tuple[Entry, int]]:
    """Return what has no row yet; raises ConfigError and DataError for a row of other settings, and what cannot run."""
    missing = [(entry, seed) for entry, seed in work if not _finished(entry, seed, out)]
    for i, (entry, seed) in enumerate(missing):
        if all(entry is not other for other, _ in missing[:i]):
            prepared(entry, replace(entry.config, seed=seed))
    return missing


def run_all(work: Sequence[tuple[Entry, int]], missing: Sequence[tuple[Entry, int]], place: Place) -> None:
    """Make the rows of a comparison that are missing; what diverges becomes a row that says so. Raises StorageError."""
    with storing(place.out):
        disk.make_folder(place.out / "rows", named=True)
    first = {entry.name: seed for entry, seed in reversed(work)}
    for entry, seed in missing:
        chosen = choose(entry, first[entry.name], place) if entry.tune.grid else Chosen(entry.config)
        place.shown.begins(f"{entry.name}, seed {seed}")
        row = _row(entry, replace(chosen.config, seed=seed), place)
        row = replace(row, asked=asked(entry, seed), tried=chosen.tried, validation=chosen.validation)
        write_kept(row_path(place.out, entry.name, seed), row, FORMAT)
        place.shown.finished()


def _finished(entry: Entry, seed: int, out: Path) -> bool:
    """Say whether a row is there; raises ConfigError when it is that of other settings."""
    path = row_path(out, entry.name, seed)
    row = kept(path, Row)
    if row is None:
        return False
    now = asked(entry, seed)
    unlike = [
        f"{key}: {row.asked.get(key)!r} and {now[key]!r}" for key in ("kind", "tune") if row.asked.get(key) != now[key]
    ]
    before, config = config_from(row.asked.get("settings", {})), replace(entry.config, seed=seed)
    if before.data.source != config.data.source and row.data == asdict(fingerprint(prepared(entry, config).data)):
        before = replace(before, data=replace(before.data, source=config.data.source))  # the same by another path
    unlike += differences(before, config)
    if unlike:
        raise ConfigError(
            f"{path} holds '{entry.name}' with other settings ({'; '.join(unlike)}): "
            "give another folder, or the same settings to go on"
        )
    return True


def _row(entry: Entry, config: RunConfig, place: Place) -> Row:
    ready = prepared(entry, config)
    folder = place.folder(f"{entry.name}-seed-{config.seed}")
    row = Row(
        *(entry.name, entry.kind, config.seed, {}, to_dict(ready.config), asdict(fingerprint(ready.data))),
        unused=list(ready.left_out.why),
        rounds=sum(phase.rounds for phase in ready.config.phases),
    )
    try:
        scores = every_score(entry, ready, folder, place)
        return replace(row, scores=scores, curve=curve_of(history_in(folder)))
    except DivergedError as error:
        logger.warning("%s, seed %d: %s", entry.name, config.seed, error)
        return replace(row, diverged=str(error), curve=curve_of(history_in(folder)))
