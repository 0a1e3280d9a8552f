"""Two kinds of cameras in a file."""

import pytest

from edgemeta.bench import cameras
from edgemeta.bench.similar import other_camera
from edgemeta.config import DataConfig
from edgemeta.data import open_data
from edgemeta.fed.participants import divide


def test_every_other_participant_has_the_other_camera(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "PARTICIPANTS", 4)
    files = [tmp_path / name for name in ("a.npz", "b.npz")]
    for path in files:
        cameras.main(["--data", "synthetic:samples=3000,size=8", "--out", str(path)])
    assert files[0].read_bytes() == files[1].read_bytes()
    whole, split = open_data("synthetic:samples=3000,size=8"), open_data(str(files[0]))
    people, _ = divide(split, DataConfig(participants=4, partition="natural"), 0)
    assert [(len(one.train_set), len(one.test_set)) for one in people] == [(500, 100)] * 4
    plain, labels = whole.test.load()
    other, _ = other_camera(plain, labels)
    known = [
        {(sample.tobytes(), label) for sample, label in zip(x, labels.tolist(), strict=True)} for x in (plain, other)
    ]
    for one in people:
        x, y = one.test_set.load()
        kind = one.test_set.owners.numbers[0] % 2
        assert {(sample.tobytes(), label) for sample, label in zip(x, y.tolist(), strict=True)} <= known[kind]
