"""What peers send, spoiled at random: it is read or refused by the errors that are documented, and by no others.

EDGEMETA_FUZZ=100000 tries so many of each instead of a few.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict

from gateways import NETWORK, SCORES, update_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemeta.config import DataConfig, EvaluationConfig, PhaseConfig
from edgemeta.device.calls import Answer, Away
from edgemeta.errors import ConfigError, ModelFileError
from edgemeta.fed.description import Description
from edgemeta.fed.messages import Work, admit_evaluation, admit_update, read_work
from edgemeta.fed.progress import Stage
from edgemeta.fed.refusal import Refused
from edgemeta.link.joinfile import read_join_file

fuzz = settings(
    max_examples=int(os.environ.get("EDGEMETA_FUZZ", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SIZES = {"theta": NETWORK.layout.size}
WORK = Work(Stage.TRAIN, 1, 0, 0, 0, PhaseConfig(), EvaluationConfig(), NETWORK.layout.fingerprint, 0)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -1, 2**63]) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def spoiled(whole):
    """Bytes with some of them changed, and cut."""
    change = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    return st.builds(_change, st.just(whole), st.lists(change, max_size=4), st.integers(0, len(whole)) | st.none())


def _change(whole, changes, end):
    data = bytearray(whole)
    for place, value in changes:
        data[place] = value
    return bytes(data[:end])


def swapped(whole):
    """JSON in which one value, at whatever depth, is another."""
    places = list(_places(whole))
    return st.builds(lambda place, value: _swap(whole, place, value), st.sampled_from(places), odd)


def _places(value, path=()):
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value[key], (*path, key))


def _swap(whole, place, value):
    if not place:
        return value
    copy = whole.copy()
    copy[place[0]] = _swap(whole[place[0]], place[1:], value)
    return copy


@fuzz
@given(spoiled(update_body(1.0, 1)))
def test_updates(tmp_path, data):
    (tmp_path / "update").write_bytes(data)
    with suppress(Refused):
        assert admit_update(tmp_path / "update", range(1, 2), NETWORK.layout, SIZES, "float32").samples >= 1


@fuzz
@given(spoiled(WORK.header(SIZES) + bytes(4 * NETWORK.layout.size)))
def test_tasks(tmp_path, data):
    (tmp_path / "work").write_bytes(data)
    with suppress(ModelFileError):
        assert read_work(tmp_path / "work", NETWORK)[1]["theta"].size == NETWORK.layout.size


EVALUATION = {"metrics": {"samples": 4, "before": SCORES, "after": SCORES, "grid": [SCORES]}}


@fuzz
@given(swapped(EVALUATION))
def test_evaluations(value):
    with suppress(Refused):
        admit_evaluation(json.dumps(value).encode(), EvaluationConfig(grid=((1, 4),)), classifies=True)


DESCRIPTION = Description(DataConfig(), 3, NETWORK, ("a", "b"), 7).to_json()


@fuzz
@given(swapped(json.loads(json.dumps(DESCRIPTION))))
def test_what_a_gateway_says_of_its_run(value):
    with suppress(ConfigError, Away):
        Description.from_json(Answer(200, json.dumps(value).encode()).json())


JOIN = b'format = "edgemeta-join/1"\nurl = "https://g:1"\nname = "cam"\ntoken = "t"\ncertificate = "c"\n'


@fuzz
@given(spoiled(JOIN))
def test_join_files(tmp_path, data):
    (tmp_path / "join").write_bytes(data)
    (tmp_path / "join").chmod(0o600)
    with suppress(ConfigError):
        assert asdict(read_join_file(tmp_path / "join"))["token"]
