"""From a table, of TOML or JSON, to a frozen record: types and ranges are checked, with every complaint shown at once.

A record is a dataclass. Its hints may be bool, int, float, str, Any, an enum of strings, another record, T | None, a
union, tuple[T, ...], tuple[T, T], list[T], and dict[str, T] or Mapping[str, T].
"""

import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from edgemeta.errors import ConfigError

Record = TypeVar("Record")
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True)
class NoSettings:
    """The settings of what has nothing to be set."""


def number(default: Any, low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """Return a field with a range: `low` itself is allowed unless `above`."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def record_from(kind: type[Record], table: Any) -> Record:
    """Return one checked record; raises ConfigError that lists every unknown key, wrong type and wrong value."""
    complaints: list[str] = []
    record = read_record(kind, table, "", complaints)
    if complaints:
        raise ConfigError("; ".join(complaints))
    return record


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint at what an unknown name may have been meant to be."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known) or 'none'}"


def read_record(kind: type[Record], table: Any, path: str, complaints: list[str]) -> Record:
    """Return the record, appending to `complaints` whatever is wrong with it; path: of the table, "" or with a dot.

    What is wrong has its default, so a record with complaints is of use for further ones only. Raises ConfigError at
    once when a field that is missing has none.
    """
    if not isinstance(table, Mapping):
        complaints.append(f"{path[:-1] or 'the configuration'} is {table!r}: expected a table")
        table = {}
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    complaints += [
        f"unknown setting '{path}{key}': {nearest(str(key), list(known))}" for key in table if key not in known
    ]
    hints, values = get_type_hints(kind), {}
    for name, entry in known.items():
        if name in table:
            try:
                values[name] = _value(hints[name], table[name], path + name, complaints)
                _check_range(values[name], entry.metadata)
            except ValueError as error:
                complaints.append(f"{path}{name} is {table[name]!r}: {error}")
                values.pop(name, None)
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError("; ".join(complaints) if name in table else f"{path}{name} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, path: str, complaints: list[str]) -> Any:
    """Return `value` as the type `hint`; raises ValueError that says what was expected."""
    origin, kinds = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return read_record(hint, value, f"{path}.", complaints)  # type: ignore[arg-type]
    if origin is UnionType:
        return _union([kind for kind in kinds if kind is not NoneType], value, path, complaints)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list")
        if origin is tuple and kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise ValueError(f"expected a list of {len(kinds)}")
        return origin(_value(kinds[0], item, f"{path}.{i}", complaints) for i, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(type(key) is str for key in value):
            raise ValueError("expected a table")
        return {key: _value(kinds[1], item, f"{path}.{key}", complaints) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in list(hint):
            raise ValueError(f"expected one of {', '.join(hint)}")
        return hint(value)
    return _plain(hint, value)


def _plain(hint: Any, value: Any) -> Any:
    if hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # NaN, infinity, or a whole number that no float can hold
            raise ValueError("expected a finite number")
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"expected {PLAIN[hint]}")
    if hint is str and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("expected text that UTF-8 can hold")
    return value


def _union(kinds: list[Any], value: Any, path: str, complaints: list[str]) -> Any:
    """Return `value` as the first of `kinds` that it fits; None stands for 'not set'."""
    if value is None:
        return None
    errors = []
    for kind in kinds:
        try:
            return _value(kind, value, path, complaints)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(" or ".join(errors))


def _check_range(value: Any, metadata: Mapping[str, Any]) -> None:
    if not metadata or value is None:
        return
    low, high, above = metadata["low"], metadata["high"], metadata["above"]
    if value < low or value > high or (above and value == low):
        upper = f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"expected {'more than' if above else 'at least'} {low:g}{upper}")
