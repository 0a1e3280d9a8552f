"""Files that a program keeps: older ones open, newer ones are refused by name, damaged ones are one message."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemeta.device.state import FORMAT as DEVICE
from edgemeta.device.state import Identity
from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.progress import FORMAT as PROGRESS
from edgemeta.fed.progress import Progress
from edgemeta.gateway.roster import FORMAT as ROSTER
from edgemeta.gateway.roster import Kept
from edgemeta.gateway.tokens import FORMAT as TOKENS
from edgemeta.gateway.tokens import Register
from edgemeta.storage import Damaged, read_kept, write_kept


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    key: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    name: str
    colour: Colour = Colour.RED
    count: int | None = None
    inner: dict[str, Inner] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)


FORM = "edgemeta-box/2"
WHOLE = Box("a", Colour.BLUE, 3, {"x": Inner("k", ("1", "2"))}, [4, 5])


def kept(path: Any, text: str | bytes) -> Box | None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_kept(path, Box, FORM, "make another one")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "box.json"
    assert read_kept(path, Box, FORM, "") is None
    write_kept(path, WHOLE, FORM, private=True)
    assert read_kept(path, Box, FORM, "") == WHOLE
    assert json.loads(path.read_text())["format"] == FORM
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(read_kept(path, Box, FORM, "").colour, Colour)


def test_an_older_file_lacks_keys_and_a_newer_one_is_refused_by_name(tmp_path):
    path = tmp_path / "box.json"
    assert kept(path, '{"name": "a"}') == Box("a")
    assert kept(path, '{"format": "edgemeta-box/1", "name": "a", "count": null}') == Box("a")
    with pytest.raises(ConfigError, match=r"'edgemeta-box/3'.*knows up to 'edgemeta-box/2': install a newer") as newer:
        kept(path, '{"format": "edgemeta-box/3", "colours": []}')
    assert not isinstance(newer.value, Damaged)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[]", "no JSON object"),
        (b"\xff{}", "decode"),
        ('{"name": "a", "format": 7}', "format"),
        ('{"name": "a", "format": "edgemeta-roster/1"}', "format"),
        ("{}", "name is missing"),
        ('{"name": 7}', "name is 7: expected a string"),
        ('{"name": "a", "colour": "green"}', "colour is 'green': expected one of red, blue"),
        ('{"name": "a", "count": true}', "count is True: expected a whole number"),
        ('{"name": "a", "size": 1}', "unknown setting 'size'"),
        ('{"name": "a", "inner": {"x": {}}}', r"inner\.x\.key is missing"),
        ('{"name": "a", "inner": {"x": {"key": "k", "parts": [1]}}}', "expected a string"),
        ('{"name": "a", "inner": []}', "expected a table"),
        ('{"name": "a", "numbers": [1, "2"]}', "expected a whole number"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_file_is_one_message(tmp_path, text, said):
    with pytest.raises(Damaged, match=said) as damaged:
        kept(tmp_path / "box.json", text)
    assert str(damaged.value).endswith("make another one")
    assert str(damaged.value).startswith(f"{tmp_path / 'box.json'} is damaged (")


def test_a_file_that_cannot_be_read_is_not_a_damaged_one(tmp_path):
    (tmp_path / "box.json").mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*box\.json"):
        read_kept(tmp_path / "box.json", Box, FORM, "")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KINDS = [
    (Progress(cohort=[1], counted={"1": 2}, record={"round": 0}), PROGRESS),
    (Identity("k", "http://g", "cam", session="s", joined={"participant": 0}), DEVICE),
    (Kept("salt", {}), ROSTER),
    (Register({}, "x"), TOKENS),
]


@pytest.mark.parametrize(("record", "form"), KINDS, ids=lambda value: type(value).__name__)
def test_whatever_stands_in_a_file_it_is_read_or_damaged(tmp_path, record, form):
    """No other exception: each key of each file of ours gets whatever JSON can hold."""
    path, whole = tmp_path / "kept.json", asdict(record)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([*whole, "format", "more"]), values)
    def spoil(key: str, value: Any) -> None:
        path.write_text(json.dumps({"format": form, **whole, key: value}))
        with suppress(ConfigError):
            assert isinstance(read_kept(path, type(record), form, ""), type(record))

    spoil()
    write_kept(path, record, form)
    assert read_kept(path, type(record), form, "") == record


def test_where_a_run_is_are_numbers_from_zero(tmp_path):
    for key in ("round", "model", "attempt", "history"):
        (tmp_path / "progress.json").write_text(json.dumps({key: -1}))
        with pytest.raises(Damaged, match=f"{key} is -1: expected at least 0"):
            read_kept(tmp_path / "progress.json", Progress, PROGRESS, "")
