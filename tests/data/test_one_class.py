"""One class: one device may have no more, whatever its data's form, but a run needs two to tell apart."""

import numpy as np
import pytest
from rawfiles import cifar, idx, pictures

import edgemeta
from edgemeta.api import prepare, prepare_gateway
from edgemeta.config import DataConfig, config_from
from edgemeta.data import check_several, from_arrays, open_data
from edgemeta.device.own import own_part
from edgemeta.errors import ConfigError, DataError

X = np.arange(240, dtype=np.uint8).reshape(60, 2, 2, 1)
SETTINGS = {"model": {"name": "mlp"}, "data": {"participants": 2, "partition": "iid"}, "phases": [{"rounds": 1}]}


def as_folder(path, name="empty"):
    pictures(path / name, 60)
    return path, (2, 2, 1), name


def as_npz(path):
    np.savez(path / "a.npz", x=X, y=np.full(60, 4))  # the fifth of five, as far as anyone knows
    return path / "a.npz", (2, 2, 1), "4"


def as_named_npz(path):
    np.savez(path / "a.npz", x=X, y=np.zeros(60, int), classes=["empty"])
    return path / "a.npz", (2, 2, 1), "empty"


def as_idx(path):
    for side in ("train", "t10k"):
        (path / f"{side}-images-idx3-ubyte").write_bytes(idx(X[..., 0]))
        (path / f"{side}-labels-idx1-ubyte").write_bytes(idx(np.zeros(60)))
    return path, (2, 2, 1), "0"


def as_cifar(path):
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (path / name).write_bytes(cifar([3] * 4))
    return path, (32, 32, 3), "cat"


FORMS = [as_folder, as_npz, as_named_npz, as_idx, as_cifar]


@pytest.mark.parametrize("form", FORMS)
def test_a_device_may_have_one_class(tmp_path, form):
    path, shape, name = form(tmp_path)
    part = own_part(str(path), shape, ("visitor", name), DataConfig(), 0, 0, cut=False)
    assert set(part.train.y.tolist()) == set(part.test.y.tolist()) == {1}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_may_not(tmp_path, form):
    path, shape, name = form(tmp_path)
    settings = SETTINGS | {"model": {"name": "mlp", "input_shape": shape}}
    settings["data"] = SETTINGS["data"] | {"source": str(path)}
    with pytest.raises((ConfigError, DataError), match=rf"one class \({name}\): .* two or more to tell apart"):
        prepare(config_from(settings))


def test_a_run_on_arrays_may_not_either():
    part = (X, np.full(60, 1))
    with pytest.raises(DataError, match=r"one class \(1\)"):
        edgemeta.simulate(SETTINGS, data=[(part, part), (part, part)])
    other = (X, np.zeros(60, int))
    assert len(prepare(config_from(SETTINGS), [(part, part), (other, other)]).participants) == 2


def test_a_gateway_s_run_needs_two_names(tmp_path):
    path, _, _ = as_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"one class \(empty\)"):
        prepare_gateway(config_from(SETTINGS | {"data": {"source": str(path)}}))


def test_several():
    one, two = (from_arrays(X, np.full(60, label), ["ant", "bee"]) for label in (0, 1))
    check_several([one, two])
    with pytest.raises(DataError, match=r"one class \(bee\)"):
        check_several([two, two])
    with pytest.raises(DataError, match=r"one class \(\)"):
        check_several([])


def test_the_name_of_the_class_is_what_the_reader_says(tmp_path):
    path, shape, name = as_folder(tmp_path, "visitor")
    assert open_data(str(path), shape=shape).train.classes == (name,)
