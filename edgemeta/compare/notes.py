"""What a reader has to know before comparing: other data, unequal budgets, and what was tuned on what."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edgemeta.compare.entries import Kind
from edgemeta.compare.results import Figure, Line
from edgemeta.compare.rows import Row

EQUAL = 1.01  # a budget is as large as another one up to this factor


class Note(NamedTuple):
    """A sentence, and the names of the lines that it is about."""

    text: str
    names: tuple[str, ...]


def notes_of(lines: Sequence[Line]) -> list[Note]:
    """Return what is not equal between lines, and what figures are not, in sentences."""
    return [
        *_data(lines),
        *_seeds(lines),
        *_budgets(lines),
        *_adaptation(lines),
        *_short(lines),
        *_validation(lines),
        *_ended(lines),
    ]


def tuned_of(line: Line) -> str:
    """Return in words what was chosen for a line, and on what."""
    rows = [row for row in line.rows if row.tried]
    if not rows:
        return "nothing was chosen here: its settings are those of its configuration, however they were found"
    best, *others = rows[0].tried
    share, seed = f"{100 * rows[0].validation:g} %", line.rows[0].seed
    told = "; ".join(f"{_settings(one.chosen)}: {_score(one.accuracy)}" for one in others)
    return (
        f"{_settings(best.chosen)}, of {len(rows[0].tried)} combinations: {_score(best.accuracy)} for training "
        f"participants, adapted, on {share} of their training data set aside, at seed {seed}"
        + f" ({told})"
        * bool(told)
    )


def adapted_by(line: Line) -> str:
    """Return in words how a line's models are adapted; of one that is not there yet, nothing."""
    after = line.groups["known"].after
    if after is None or line.rows[0].kind is Kind.ALONE:
        return "" if after is None else after.adaptation
    lr = f" at {line.rows[0].config['evaluation']['adapt_lr']:g}" if after.steps else ""
    return f"{after.adaptation}, {steps_of(after.steps)}{lr} on {after.support}"


def steps_of(count: int) -> str:
    """Return a number of steps in words."""
    return f"{count} step{'s' * (count != 1)}"


def differing(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Return by setting what each line has, for the settings in which they differ; a missing one is empty."""
    flat = [_flat(line.rows[0].config) for line in lines]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    found = {key: [_plain(settings.get(key)) for settings in flat] for key in keys if key != "seed"}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _data(lines: Sequence[Line]) -> list[Note]:
    notes = []
    for seed in dict.fromkeys(row.seed for line in lines for row in line.rows):
        rows = [row for line in lines for row in line.rows if row.seed == seed]
        kinds = _named(rows, lambda row: tuple(sorted(row.data.items())) or None)
        if len(kinds) > 1:
            notes.append(Note(f"Not the same data, at seed {seed}: {_against(kinds)}.", _all(kinds)))
    first = [line.rows[0] for line in lines]
    for key in dict.fromkeys(key for row in first for key in row.config.get("data", {})):
        if key != "source":
            values = _named(first, lambda row, key=key: row.config.get("data", {}).get(key))  # type: ignore[misc]
            if len(values) > 1:
                told = "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())
                notes.append(Note(f"Not the same data: data.{key} is {told}.", _all(values)))
    return notes


def _named(rows: Sequence[Row], of: Callable[[Row], Any]) -> dict[Any, list[str]]:
    """Return the names of rows by what they have; those of which nothing is known are nowhere."""
    found: dict[Any, list[str]] = {}
    for row in rows:
        if (value := of(row)) is not None:
            found.setdefault(value, []).append(row.name)
    return found


def _seeds(lines: Sequence[Line]) -> list[Note]:
    seeds = {line.name: tuple(row.seed for row in line.whole) for line in lines if line.whole}
    if len(set(seeds.values())) < 2:
        return []
    told = "; ".join(f"{', '.join(map(str, found))} in {name}" for name, found in seeds.items())
    return [Note(f"Not over the same seeds: {told}.", tuple(seeds))]


def _budgets(lines: Sequence[Line]) -> list[Note]:
    notes = []
    for what, unit, scale in (("gradients", "gradients on training participants", 1), ("bytes", "MB sent", 10**6)):
        found = {line.name: figure.mean / scale for line in lines if (figure := _budget(line, what))}
        if found and max(found.values()) > EQUAL * min(found.values()):
            told = "; ".join(f"{_number(value)} in {name}" for name, value in found.items())
            notes.append(Note(f"Unequal budgets, in {unit}: {told}.", tuple(found)))
    return notes


def _budget(line: Line, what: str) -> Figure | None:
    return line.gradients if what == "gradients" else line.bytes


def _adaptation(lines: Sequence[Line]) -> list[Note]:
    ways = {line.name: adapted_by(line) for line in lines if line.rows[0].kind is not Kind.ALONE and line.whole}
    if len(set(ways.values())) < 2:
        return []
    return [Note(f"Not adapted alike: {'; '.join(f'{way} in {name}' for name, way in ways.items())}.", tuple(ways))]


def _short(lines: Sequence[Line]) -> list[Note]:
    found = {
        (way.support, way.short)
        for line in lines
        for group in line.groups.values()
        for way in group.ways
        if way.short is not None
    }
    if not found:
        return []
    supports, fewest = sorted({support for support, _ in found}), min(short for _, short in found)
    said = f"there are participants with {fewest} training samples"
    return [Note(f"Support sets of {' and '.join(map(str, supports))}: {said}, and all were used.", ())]


def _validation(lines: Sequence[Line]) -> list[Note]:
    notes = []
    aside = [line for line in lines if line.rows[0].config.get("data", {}).get("validation")]
    if aside:
        said = "Scored on training data set aside (data.validation), to choose settings by: these are no results"
        notes.append(Note(f"{said}.", tuple(line.name for line in aside)))
    effort = {line.name: max((len(row.tried) for row in line.rows), default=0) for line in lines}
    if len(set(effort.values())) > 1:
        told = "; ".join(f"{count or 'none'} for {name}" for name, count in effort.items())
        notes.append(Note(f"Unequal effort in choosing settings, in combinations tried: {told}.", tuple(effort)))
    return notes


def _ended(lines: Sequence[Line]) -> list[Note]:
    return [
        Note(f"{line.name}, seed {row.seed}, diverged: {row.diverged}.", (line.name,))
        for line in lines
        for row in line.rows
        if row.diverged
    ]


def _against(kinds: Mapping[Any, Sequence[str]]) -> str:
    return "; other than that of ".join(", ".join(names) for names in kinds.values())


def _all(groups: Mapping[Any, Sequence[str]]) -> tuple[str, ...]:
    return tuple(name for names in groups.values() for name in names)


def _settings(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in chosen.items())


def _score(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"{100 * accuracy:.1f} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"[{_plain(item)}]" if isinstance(item, list) else _plain(item) for item in value)
    return "" if value is None else str(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of tables, and of lists of tables, by their dotted keys."""
    items: Any = value.items() if isinstance(value, dict) else None
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    if items is None:
        return {path[:-1]: value}
    return {key: leaf for name, item in items for key, leaf in _flat(item, f"{path}{name}.").items()}
