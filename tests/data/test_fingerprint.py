"""What tells one data set from another."""

import gzip
import json
import struct
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from edgemeta.data import Split, from_arrays, open_data
from edgemeta.data.fingerprint import fingerprint

X = np.random.default_rng(0).integers(0, 256, (90, 4, 4, 3), np.uint8)
Y = np.arange(90) % 3


def split(x=X, y=Y, classes=("a", "b", "c"), train=60):
    return Split(from_arrays(x[:train], y[:train], classes), from_arrays(x[train:], y[train:], classes))


def changed(values, *place):
    """A copy that differs in one number."""
    values = values.copy()
    values[place] ^= 1
    return values


OWN = fingerprint([split()])


def test_it_is_the_same_for_the_same_data_and_short():
    assert fingerprint([split(X.copy(), Y.tolist())]) == fingerprint([split(X.astype(np.int64))]) == OWN
    assert (OWN.train, OWN.test) == (60, 30)
    assert len(json.dumps(asdict(OWN))) < 300


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (split(y=2 - Y), ["other classes or labels"]),
        (split(y=changed(Y, 7)), ["other classes or labels"]),
        (split(classes=("a", "c", "b")), ["other classes or labels"]),
        (split(X.reshape(90, 2, 8, 3)), ["other classes or labels"]),  # the same bytes in another shape
        (split(255 - X), ["other values in the samples"]),
        (split(changed(X, 0, 3, 3, 2)), ["other values in the samples"]),  # the first is looked at
        (split(changed(X, 60, 0, 0, 0)), ["other values in the samples"]),  # the first of the test samples, too
        (split(X / 255), ["other values in the samples"]),
        (split(train=59), ["60 train samples, and now 59", "30 test samples, and now 31"]),
        (split(X[:80], Y[:80]), ["30 test samples, and now 20"]),
    ],
)
def test_other_data_differs_and_it_says_in_what(other, said):
    assert OWN.unlike(fingerprint([other])) == said
    assert OWN.unlike(OWN) == []


def test_participants_count_too_and_their_order():
    both = [split(), split(255 - X)]
    assert fingerprint(both) == fingerprint([split(), split(255 - X)])
    assert len({fingerprint(some) for some in (both, both[::-1], both[:1], both[1:])}) == 4


def test_sixty_four_samples_are_read_of_any_number():
    read = []

    def reading(part):
        def read_and_count(positions, labels):
            read.append(len(positions))
            return part.read(positions, labels)

        return type(part)(part.labels, part.classes, part.shape, read_and_count, part.positions)

    whole = open_data("synthetic:samples=60000,size=8")
    fingerprint([Split(reading(whole.train), reading(whole.test))])
    assert sum(read) == 64
    read.clear()
    fingerprint([Split(reading(split().train), reading(split().test)) for _ in range(100)])
    assert sum(read) == 64


def test_synthetic_data_is_what_is_drawn_and_not_how_it_is_written():
    def of(spec, seed=0):
        return fingerprint([open_data(spec, seed=seed)])

    same = of("synthetic:samples=100,size=8")
    assert of("synthetic:size=8,samples=100,classes=10,seed=0") == same
    for spec, seed in (("synthetic:samples=100,size=8,seed=1", 0), ("synthetic:samples=100,size=8", 1)):
        assert same.unlike(of(spec, seed)) == ["other values in the samples"]


def idx(folder, pack, ending):
    folder.mkdir()
    for part, place in (("train", slice(0, 60)), ("t10k", slice(60, 90))):
        x, y = X[place, ..., 0], Y[place]
        images = struct.pack(">4I", 0x803, *x.shape) + x.tobytes()
        labels = struct.pack(">2I", 0x801, len(y)) + bytes(y.tolist())
        (folder / f"{part}-images{ending}").write_bytes(pack(images))
        (folder / f"{part}-labels{ending}").write_bytes(pack(labels))
    return folder


def test_neither_paths_nor_packing_nor_times_are_in_it(tmp_path):
    plain, packed = idx(tmp_path / "plain", bytes, ""), idx(tmp_path / "packed", gzip.compress, ".gz")
    assert fingerprint([open_data(str(plain))]) == fingerprint([open_data(str(packed))])
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "b.npz")):
        save(tmp_path / name, x=X[:60, ..., 0], y=Y[:60], x_test=X[60:, ..., 0], y_test=Y[60:])
    assert fingerprint([open_data(str(tmp_path / "a.npz"))]) == fingerprint([open_data(str(tmp_path / "b.npz"))])
    assert fingerprint([open_data(str(tmp_path / "a.npz"))]) == fingerprint([open_data(str(plain))])


def test_folders_of_pictures_are_what_is_in_them(tmp_path):
    for root in ("one", "two"):
        for i in range(24):
            place = tmp_path / root / ("test" if i % 3 == 0 else "train") / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(X[i]).save(place / f"{root}-{i:02d}.png")  # the files' names are no data

    def found(root):
        return fingerprint([open_data(str(tmp_path / root), shape=(4, 4, 3))])

    assert found("one") == found("two")
    Image.fromarray(255 - X[1]).save(tmp_path / "two" / "train" / "b" / "two-01.png")
    assert found("one").unlike(found("two")) == ["other values in the samples"]
    (tmp_path / "two" / "train" / "b" / "two-01.png").unlink()
    assert found("one").unlike(found("two")) == ["16 train samples, and now 15"]
