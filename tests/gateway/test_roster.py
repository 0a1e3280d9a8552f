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


def test_whose_name_is_proven_gets_another_number_where_the_wanted_one_is_taken(tmp_path):
    roster = Roster(tmp_path / "roster.json", 3, "salt")
    assert roster.join("squatter", KEY, 2, "token of it")[0] == 2
    first = roster.join("rightful", KEY, 2, "its token")
    assert first[0] == 0
    assert reason(roster, "rightful", KEY, 1, "its token") == "other-partition"
    for again in (roster, Roster(tmp_path / "roster.json", 3, "salt")):
        assert again.join("rightful", KEY, 2, "its token") == first
        assert again.join("rightful", KEY, 0, "its token") == first
        assert again.join("rightful", KEY, None, "its token") == first
    assert reason(roster, "unproven", KEY, 2) == "partition-taken"
    assert roster.join("third", KEY, 2, "its token")[0] == 1
    assert reason(roster, "fourth", KEY, 2, "its token") == "run-full"


def test_a_kept_number_is_its_devices_alone(tmp_path):
    roster, kept = Roster(tmp_path / "roster.json", 4, "salt"), {"a": 0, "c": 2, "far": 9}
    assert reason(roster, "b", KEY, 2, "token", kept) == "partition-taken"
    assert roster.join("b", KEY, None, "token", kept)[0] == 1
    assert roster.join("c", KEY, 0, "token", kept)[0] == 2  # the number is kept for it, the part is its own affair
    assert roster.join("far", KEY, None, "token", kept)[0] == 3  # the run has no number 9
    assert reason(roster, "d", KEY, None, "token", kept) == "run-full"
    assert roster.join("a", KEY, None, "token", kept)[0] == 0
    assert roster.join("a", KEY, None, "token", kept)[0] == 0


def test_a_number_that_was_taken_before_it_was_kept_keeps_nobody_out(tmp_path):
    roster = Roster(tmp_path / "roster.json", 2, "salt")
    roster.join("early", KEY, 1, "token")
    assert roster.join("late", KEY, 1, "token", {"late": 1})[0] == 0


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
