"""Who has joined: numbers, keys, sessions, and what is on disk of them."""

import json

import pytest

from edgemeta.errors import ConfigError, StorageError
from edgemeta.fed.refusal import Refused
from edgemeta.gateway.roster import Roster

pytestmark = pytest.mark.board

KEY = "0123456789abcdef"


def reason(roster, *asked):
    with pytest.raises(Refused) as refused:
        roster.join(*asked)
    return refused.value.reason


def test_numbers_are_the_lowest_free_ones_or_those_asked_for(tmp_path):
    roster = Roster(tmp_path / "roster.json", 4, "salt")
    assert roster.join("b", KEY, 1)[0] == 1
    assert [roster.join(name, KEY)[0] for name in "acd"] == [0, 2, 3]
    assert dict(roster.names) == {0: "a", 1: "b", 2: "c", 3: "d"}
    assert reason(roster, "e", KEY) == "run-full"


def test_what_cannot_be_had_is_refused(tmp_path):
    roster = Roster(tmp_path / "roster.json", 3, "salt")
    roster.join("a", KEY, 2)
    assert reason(roster, "b", KEY, 2) == "partition-taken"
    assert reason(roster, "b", KEY, 3) == "bad-partition-id"
    assert reason(roster, "b", KEY, -1) == "bad-partition-id"
    assert reason(roster, "a", KEY + "x") == "name-in-use"
    assert reason(roster, "a", KEY, 1) == "other-partition"
    assert dict(roster.names) == {2: "a"}


def test_the_same_name_and_key_join_again_at_any_time(tmp_path):
    roster = Roster(tmp_path / "roster.json", 1, "salt")
    first = roster.join("a", KEY)
    written = (tmp_path / "roster.json").stat().st_mtime_ns
    assert roster.join("a", KEY) == roster.join("a", KEY, 0) == first
    assert (tmp_path / "roster.json").stat().st_mtime_ns == written


def test_a_session_says_whose_it_is(tmp_path):
    roster = Roster(tmp_path / "roster.json", 2, "salt")
    sessions = [roster.join(name, KEY)[1] for name in "ab"]
    assert [roster.find(session) for session in sessions] == [0, 1]
    for nobody in ("", KEY, sessions[0][:-1], sessions[0].upper()):
        assert roster.find(nobody) is None


def test_another_run_has_other_sessions(tmp_path):
    sessions = [Roster(tmp_path / salt, 1, salt).join("a", KEY)[1] for salt in ("one", "two")]
    assert sessions[0] != sessions[1]


def test_the_roster_outlives_the_process_and_holds_no_secret(tmp_path):
    path = tmp_path / "roster.json"
    joined = Roster(path, 2, "salt").join("a", KEY, 1)
    again = Roster(path, 2, "other salt")
    assert again.find(joined[1]) == 1
    assert again.join("a", KEY) == joined
    assert reason(again, "a", KEY + "x") == "name-in-use"
    assert KEY.encode() not in path.read_bytes()
    assert joined[1].encode() not in path.read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"salt": "s", "devices": {"a": {"participant": 1}}}', "\xff"])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "roster.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"roster\.json is damaged"):
        Roster(path, 2, "salt")


def test_a_full_disk_takes_nobody_in(tmp_path, monkeypatch):
    roster = Roster(tmp_path / "roster.json", 2, "salt")
    roster.join("a", KEY)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edgemeta.storage.os.fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            roster.join("b", KEY)
        assert roster.join("a", KEY)[0] == 0
    assert dict(roster.names) == {0: "a"}
    assert list(json.loads((tmp_path / "roster.json").read_text())["devices"]) == ["a"]
    assert roster.join("b", KEY)[0] == 1
