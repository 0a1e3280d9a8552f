"""Sets that many people have, under the names and in the form in which they are handed out."""

import gzip

import numpy as np
import pytest
from PIL import Image
from rawfiles import cifar, idx

from edgemeta.data import open_data
from edgemeta.errors import DataError

# EMNIST stores a picture column by column: this is an upright L of 3 x 2 pixels, and what its file holds.
UPRIGHT = np.array([[9, 0], [9, 0], [9, 9]], np.uint8)
STORED = np.array([[9, 9, 9], [0, 0, 9]], np.uint8)


def emnist(folder, split="letters", labels=(1, 3, 1), mapping="1 65 97\n2 66 98\n3 67 99\n", pack=bytes, ending=""):
    for side in ("train", "test"):
        start = f"emnist-{split}-{side}"
        pictures = np.stack([STORED + i for i in range(len(labels))])
        (folder / f"{start}-images-idx3-ubyte{ending}").write_bytes(pack(idx(pictures)))
        (folder / f"{start}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    if mapping is not None:
        (folder / f"emnist-{split}-mapping.txt").write_bytes(mapping.encode())
    return folder


@pytest.mark.parametrize(("pack", "ending"), [(bytes, ""), (gzip.compress, ".gz")])
def test_emnist_is_upright_and_named(tmp_path, pack, ending):
    split = open_data(str(emnist(tmp_path, pack=pack, ending=ending)))
    assert (split.kind, split.train.shape, split.unused) == ("EMNIST", (3, 2, 1), ())
    assert split.train.classes == split.test.classes == ("A", "B", "C")
    assert split.train.labels.tolist() == [0, 2, 0]
    x, y = split.test.take([2, 1]).load()
    assert x[..., 0].tolist() == [(UPRIGHT + 2).tolist(), (UPRIGHT + 1).tolist()]
    assert y.tolist() == [0, 2]


def test_emnist_without_its_mapping_has_numbers_for_names(tmp_path):
    split = open_data(str(emnist(tmp_path, "digits", mapping=None)))
    assert split.train.classes == ("0", "1", "2", "3")
    assert split.train.labels.tolist() == [1, 3, 1]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("1 65\n", "does not name label 3"),
        ("1 65\n3 C\n", "'3 C': expected a label and the number of its character"),
        ("1\n3 67\n", "'1': expected"),
        ("1 65\n3 99999999999\n", "expected a label"),
        ("1 65\n3 65\n", "must differ"),
        ("1 65\n3 7\n", "cannot be shown"),
    ],
)
def test_a_damaged_mapping_is_refused(tmp_path, mapping, said):
    with pytest.raises(DataError, match=rf"emnist-letters-mapping\.txt.*{said}"):
        open_data(str(emnist(tmp_path, mapping=mapping)))


def test_two_splits_of_emnist_are_refused(tmp_path):
    emnist(emnist(tmp_path), "digits")
    with pytest.raises(DataError, match="'emnist-digits-test-images-idx3-ubyte' and 'emnist-letters-test-"):
        open_data(str(tmp_path))


def test_cifar_100(tmp_path):
    (tmp_path / "train.bin").write_bytes(cifar([(1, 99), (0, 3)], 5))
    (tmp_path / "test.bin").write_bytes(cifar([(19, 0)], 7))
    split = open_data(str(tmp_path))
    assert split.train.classes == tuple(map(str, range(100)))
    names = [f"kind {i}" for i in range(100)]
    (tmp_path / "fine_label_names.txt").write_text("\n".join(names) + "\n\n")
    (tmp_path / "coarse_label_names.txt").write_text("fish\n")
    split = open_data(str(tmp_path), shape=(32, 32, 3))
    assert (split.kind, split.unused) == ("CIFAR-100 binary", ())
    assert split.train.classes == tuple(names)
    x, y = split.train.take([1, 0]).load()
    assert y.tolist() == [3, 99]
    assert (x == 5).all()
    assert (split.test.load()[0] == 7).all()
    (tmp_path / "test.bin").write_bytes(cifar([(0, 100)]))
    with pytest.raises(DataError, match=r"test\.bin: record 0 has label 100: expected 0 to 99"):
        open_data(str(tmp_path))
    (tmp_path / "test.bin").write_bytes(cifar([0]))
    with pytest.raises(DataError, match=r"test\.bin has 3073 bytes: expected records of 3074"):
        open_data(str(tmp_path))


def test_the_python_version_of_cifar_100_is_refused_unopened(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(DataError, match="cifar-100-binary"):
        open_data(str(tmp_path))


X = np.random.default_rng(0).integers(0, 256, (60, 2, 3, 3), np.uint8)
Y = np.arange(60) % 3


@pytest.mark.parametrize("capital", [str, str.title])
def test_keras_names_and_columns_of_labels(tmp_path, capital):
    names = {"x_train": X[:40], "y_train": Y[:40, np.newaxis].astype(np.uint8)}
    names |= {"x_test": X[40:], "y_test": Y[40:, np.newaxis].astype(np.uint8)}
    np.savez(tmp_path / "cifar.npz", **{capital(name): array for name, array in names.items()})
    split = open_data(str(tmp_path / "cifar.npz"))
    assert (len(split.train), len(split.test), split.unused) == (40, 20, ())
    x, y = split.test.load()
    assert (x == X[40:]).all()
    assert (y == Y[40:]).all()


def test_the_mixed_capitals_of_other_libraries(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=X, y_train=Y, X_test=X[:6], y_test=Y[:6], classes=["ant", "bee", "cow"])
    split = open_data(str(tmp_path / "a.npz"))
    assert (len(split.train), len(split.test)) == (60, 6)
    assert split.train.classes == ("ant", "bee", "cow")


def test_training_arrays_alone_are_split_by_content(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y)
    a, b = (open_data(str(tmp_path / name)) for name in ("a.npz", "b.npz"))
    assert (a.test.load()[0] == b.test.load()[0]).all()


def test_validation_arrays_are_the_test_side_where_there_is_no_other(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_val=X[:5], y_val=Y[:5])
    assert len(open_data(str(tmp_path / "a.npz")).test) == 5
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_val=X[:5], y_val=Y[:5], x_test=X[:7], y_test=Y[:7])
    assert len(open_data(str(tmp_path / "a.npz")).test) == 7


def test_arrays_by_other_names_are_refused_with_what_is_there(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=X, train_labels=Y)
    with pytest.raises(DataError, match=r"has no x, y: .* it has train_images, train_labels"):
        open_data(str(tmp_path / "a.npz"))


def test_endings_in_capitals(tmp_path):
    with open(tmp_path / "A.NPZ", "wb") as file:
        np.savez(file, x=X, y=Y)
    assert open_data(str(tmp_path / "A.NPZ")).kind == "npz"
    for side in ("TRAIN", "TEST"):
        (tmp_path / "cards" / side / "CAT").mkdir(parents=True)
        Image.new("L", (2, 2), 7).save(tmp_path / "cards" / side / "CAT" / "IMG_0001.PNG")
        Image.new("L", (2, 2), 7).save(tmp_path / "cards" / side / "CAT" / "IMG_0002.JPG", format="JPEG")
    assert len(open_data(str(tmp_path / "cards")).train) == 2
