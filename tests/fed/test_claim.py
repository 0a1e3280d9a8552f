"""Whose run a directory holds: its configuration and its data, whatever path the data came by."""

import json
import os
import shutil

import numpy as np
import pytest
from runs import TINY, arrays, without_seconds

import edgemeta
from edgemeta import api
from edgemeta.config import config_from
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.directory import RunDirectory

SETTINGS = TINY | {"data": {"participants": 2, "partition": "iid"}}


def saved(path, seed=0, **changes):
    (x, y), (x_test, y_test) = arrays(24, seed=seed), arrays(12, seed=seed + 9)
    np.savez(path, **({"x": x, "y": y, "x_test": x_test, "y_test": y_test} | changes))
    return path


def on(source, **more):
    return SETTINGS | {"data": SETTINGS["data"] | {"source": str(source)}} | more


def killed(settings, out):
    """Run until the second round has ended, and end there as a kill does."""

    def on_round(record):
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgemeta.simulate(settings, out=out, on_round=on_round)


@pytest.mark.slow
def test_a_killed_run_goes_on_by_any_path_to_the_same_data(tmp_path, monkeypatch):
    here, stick = tmp_path / "here", tmp_path / "stick"
    here.mkdir(), stick.mkdir()
    whole = edgemeta.simulate(on(saved(here / "a.npz")))
    shutil.copy(here / "a.npz", stick / "b.npz")
    os.utime(stick / "b.npz", (0, 0))
    (tmp_path / "link.npz").symlink_to(stick / "b.npz")
    monkeypatch.chdir(here)
    killed(on("a.npz"), tmp_path / "run")
    for source in ("./a.npz", here / "a.npz", stick / "b.npz", tmp_path / "link.npz"):
        result = edgemeta.simulate(on(source), out=tmp_path / "run")
        assert without_seconds(result.history) == without_seconds(whole.history)
        assert result.model.theta.tobytes() == whole.model.theta.tobytes()
    assert 'source = "a.npz"' in (tmp_path / "run" / "run.toml").read_text()  # what it began with
    with pytest.raises(ConfigError, match=r"another configuration \(seed: 3 and 4\): give another folder"):
        edgemeta.simulate(on("./a.npz", seed=4), out=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": 2 - arrays(24)[1]}, r"other data \(other classes or labels\)"),
        ({"x": 255 - arrays(24)[0]}, r"other data \(other values in the samples\)"),
        ({"x": arrays(25)[0], "y": arrays(25)[1]}, r"other data \(24 train samples, and now 25\)"),
        ({"y_test": 2 - arrays(12)[1]}, "other classes or labels"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_data_by_the_same_path_is_refused(tmp_path, changes, said, finished):
    settings, out = on(saved(tmp_path / "a.npz")), tmp_path / "run"
    edgemeta.simulate(settings, out=out) if finished else killed(settings, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    saved(tmp_path / "a.npz", **changes)
    with pytest.raises(ConfigError, match=rf"{said}.*give another folder, or the data with which it began"):
        edgemeta.simulate(settings, out=out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    saved(tmp_path / "b.npz", **changes)
    with pytest.raises(ConfigError, match=r"data\.source: "):  # by another path, that is said too
        edgemeta.simulate(on(tmp_path / "b.npz"), out=out)


def test_arrays_are_told_apart(tmp_path):
    data = [(arrays(12, seed=k), arrays(6, seed=9 + k)) for k in range(2)]
    opposite = [((x, 2 - y), (x_test, 2 - y_test)) for (x, y), (x_test, y_test) in data]
    settings = {"model": {"name": "mlp"}, "phases": [{"rounds": 1, "local_steps": 1}]}
    first = edgemeta.simulate(settings, data=data, out=tmp_path)
    assert edgemeta.simulate(settings, data=iter(data), out=tmp_path).summary == first.summary
    for other in (opposite, data[::-1]):
        with pytest.raises(ConfigError, match="holds a run on other data"):
            edgemeta.simulate(settings, data=other, out=tmp_path)


def test_synthetic_data_may_be_written_in_other_words(tmp_path):
    edgemeta.simulate(TINY, out=tmp_path)
    same = TINY | {"data": TINY["data"] | {"source": "synthetic:size=8,samples=120,classes=10,seed=3"}}
    assert edgemeta.simulate(same, out=tmp_path).summary["rounds"] == 4
    other = TINY | {"data": TINY["data"] | {"source": "synthetic:size=8,samples=120,seed=4"}}
    with pytest.raises(ConfigError, match=r"data\.source: .*; other values in the samples"):
        edgemeta.simulate(other, out=tmp_path)


def test_a_directory_of_before_goes_on_and_gets_a_fingerprint(tmp_path):
    settings, out = on(saved(tmp_path / "a.npz")), tmp_path / "run"
    killed(settings, out)
    kept = (out / "data.json").read_bytes()
    (out / "data.json").unlink()
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(ConfigError, match=r"data\.source"):  # nothing says that it is the same
        edgemeta.simulate(on(tmp_path / "b.npz"), out=out)
    edgemeta.simulate(settings, out=out)
    assert (out / "data.json").read_bytes() == kept
    edgemeta.simulate(on(tmp_path / "b.npz"), out=out)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"format": "edgemeta-data/1"}', "is damaged .*restore it, or remove it"),
        (b'{"format": "edgemeta-data/1", "train": "24", "test": 12, "labels": "", "samples": ""}', "is damaged"),
        (b"\xff", "is damaged"),
        (b'{"format": "edgemeta-data/2"}', "'edgemeta-data/2', and this edgemeta knows up to 'edgemeta-data/1'"),
    ],
)
def test_a_fingerprint_that_cannot_be_read_is_an_error_message(tmp_path, content, said):
    settings, out = on(saved(tmp_path / "a.npz")), tmp_path / "run"
    killed(settings, out)
    (out / "data.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"data\.json .*{said}"):
        edgemeta.simulate(settings, out=out)


def test_bad_data_leaves_no_run_behind(tmp_path):
    bad = arrays(24)[0].astype(np.float32)
    with pytest.raises(DataError, match="floats from 0 to 255"):
        edgemeta.simulate(on(saved(tmp_path / "a.npz", x=bad)), out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.toml").exists()
    edgemeta.simulate(on(saved(tmp_path / "a.npz")), out=tmp_path / "run")


def gateway(settings, out):
    """Claim a directory as a gateway does."""
    config = config_from(settings)
    opened = api.gateway_data(config)
    resolved, _ = api.prepare_gateway(config, opened)
    RunDirectory(out, resolved, data=opened and fingerprint(opened), elsewhere=opened is None).close()


def test_a_gateway_that_opens_data_tells_it_apart_too(tmp_path):
    gateway(on(saved(tmp_path / "a.npz")), tmp_path / "state")
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    gateway(on(tmp_path / "b.npz"), tmp_path / "state")
    with pytest.raises(ConfigError, match=r"data\.source: .*; other values in the samples"):
        gateway(on(saved(tmp_path / "c.npz", seed=1)), tmp_path / "state")


def test_a_source_means_nothing_where_the_data_stays_on_the_devices(tmp_path):
    model = {"name": "mlp", "input_shape": [4, 4, 1], "classes": ["0", "1", "2"]}
    for source in ("/nowhere", "synthetic", "/elsewhere"):
        gateway(on(source, model=model), tmp_path / "state")
    assert not (tmp_path / "state" / "data.json").exists()
    with pytest.raises(ConfigError, match=r"model\.classes\.2"):
        gateway(on("/nowhere", model=model | {"classes": ["0", "1", "3"]}), tmp_path / "state")
    gateway(on(saved(tmp_path / "a.npz")), tmp_path / "other")  # begun with data, and gone on with run.toml alone
    (tmp_path / "a.npz").unlink()
    gateway(on("/nowhere", model=model), tmp_path / "other")


def test_a_gateway_goes_on_with_a_simulations_directory(tmp_path):
    """A gateway and a simulation of the same settings are the same run."""
    settings = on(saved(tmp_path / "a.npz"))
    killed(settings, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    gateway(settings, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == kept
