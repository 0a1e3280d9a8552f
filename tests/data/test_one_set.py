"""A folder or file that holds more than one set: which is meant is never guessed, least of all by directory order."""

import gzip
import logging

import numpy as np
import pytest
from rawfiles import cifar, idx, pictures

from edgemeta.data import open_data
from edgemeta.errors import DataError

PARTS = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
ENDINGS = [" (1)", " (2)", "-copy", ".old", ".1", "_b", ".bak", "-fashion", " - Copy", "~", ".gz (1)"]


def content(part, number):
    """Set 0 is dark with labels 0 and 1, set 1 is bright with labels 2 and 3."""
    return idx(np.full((6, 2, 2), 10 + 100 * number) if "images" in part else np.arange(6) % 2 + 2 * number)


def write(folder, number, name=lambda part: part, pack=bytes, parts=PARTS):
    folder.mkdir(exist_ok=True)
    for part in parts:
        (folder / name(part)).write_bytes(pack(content(part, number)))
    return folder


def which(folder):
    """Return the set that each of the four files was taken from."""
    split = open_data(str(folder))
    found = [(int(x.max()) > 50, int(y.max()) > 1) for x, y in (split.train.load(), split.test.load())]
    return [int(number) for pair in found for number in pair]


@pytest.mark.parametrize("ending", ENDINGS)
def test_two_idx_sets_are_refused_by_two_names(tmp_path, ending):
    write(tmp_path, 0)
    write(tmp_path, 1, lambda part: part + ending)
    with pytest.raises(DataError, match="more than one set") as refusal:
        open_data(str(tmp_path))
    named = [part for part in PARTS if f"'{part}'" in str(refusal.value)]
    assert named
    assert f"'{named[0]}{ending}'" in str(refusal.value)


@pytest.mark.parametrize("start", ["fashion-", "Copy of ", "old_"])
def test_what_stands_before_the_name_makes_another_set_too(tmp_path, start):
    write(tmp_path, 0)
    write(tmp_path, 1, lambda part: start + part)
    with pytest.raises(DataError, match=f"'{start}t10k|'{start}train"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("other", range(1, 4))
def test_a_set_put_together_from_two_is_refused(tmp_path, other):
    write(tmp_path, 0)
    (tmp_path / PARTS[other]).unlink()
    (tmp_path / f"{PARTS[other]} (1)").write_bytes(content(PARTS[other], 1))
    with pytest.raises(DataError, match=r"'.*' and '.*ubyte \(1\)'|'.*ubyte \(1\)' and '.*'"):
        open_data(str(tmp_path))


def test_two_spellings_of_one_name_are_two_files(tmp_path):
    write(tmp_path, 0)
    (tmp_path / "train-images.idx3-ubyte").write_bytes(content("images", 1))
    with pytest.raises(DataError, match=r"'train-images-idx3-ubyte' and 'train-images\.idx3-ubyte'"):
        open_data(str(tmp_path))
    (tmp_path / "train-images.idx3-ubyte").unlink()
    (tmp_path / "TRAIN-LABELS-IDX1-UBYTE").write_bytes(content("labels", 1))
    with pytest.raises(DataError, match="'TRAIN-LABELS-IDX1-UBYTE' and 'train-labels-idx1-ubyte'"):
        open_data(str(tmp_path))


def test_both_names_of_the_test_side_are_refused(tmp_path):
    write(tmp_path, 0)
    (tmp_path / "test-images-idx3-ubyte").write_bytes(content("images", 1))
    with pytest.raises(DataError, match="'t10k-images-idx3-ubyte' and 'test-images-idx3-ubyte'"):
        open_data(str(tmp_path))


def test_a_file_and_its_own_gz_are_one(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 1, lambda part: part + ".gz", gzip.compress)
    split = open_data(str(tmp_path))
    assert which(tmp_path) == [0, 0, 0, 0]
    assert split.unused == ()


@pytest.mark.parametrize("name", [str.upper, str.title, lambda part: part.replace("t10k", "test")])
@pytest.mark.parametrize("ending", ["", ".gz", ".GZ"])
def test_one_set_may_be_spelt_in_capitals_or_say_test(tmp_path, name, ending):
    write(tmp_path, 1, lambda part: name(part) + ending, gzip.compress if ending else bytes)
    assert which(tmp_path) == [1, 1, 1, 1]


def test_what_is_packed_is_seen_in_the_file_and_not_in_its_name(tmp_path):
    write(tmp_path / "a", 1, lambda part: part + ".gz")  # a browser unpacked it on the way
    write(tmp_path / "b", 1, lambda part: part + ".gz (1)", gzip.compress)
    assert which(tmp_path / "a") == which(tmp_path / "b") == [1, 1, 1, 1]


def test_checksums_notes_and_failed_downloads_are_no_set_and_named(tmp_path, caplog):
    write(tmp_path, 1, lambda part: part + ".gz", gzip.compress)
    (tmp_path / f"{PARTS[0]}.gz.md5").write_text("0123456789abcdef")
    (tmp_path / f"{PARTS[0]} (1)").write_text("<html>404</html>")
    (tmp_path / "train-labels.csv").write_text("file,label\n")
    (tmp_path / ".train-images-idx3-ubyte.swp").write_bytes(content("images", 0))
    with caplog.at_level(logging.WARNING, "edgemeta"):
        assert which(tmp_path) == [1, 1, 1, 1]
    for name in (f"{PARTS[0]}.gz.md5", f"{PARTS[0]} (1)", "train-labels.csv"):
        assert f"{name} (1 file, beside IDX files)" in caplog.text
    assert "swp" not in caplog.text


def test_an_idx_file_that_is_damaged_is_still_refused_as_such(tmp_path):
    write(tmp_path, 0)
    (tmp_path / PARTS[0]).write_bytes(b"")
    with pytest.raises(DataError, match="train-images-idx3-ubyte starts with nothing"):
        open_data(str(tmp_path))


# CIFAR-10


def batches(folder, names, value=0):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(cifar([0, 1], value))
    return folder


BATCHES = ["data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"]


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("data_batch_1.bin", "data_batch_1 (1).bin"),
        ("data_batch_1.bin", "data_batch_1.bin.old"),
        ("data_batch_2.bin", "data_batch_2-copy.bin"),
        ("data_batch_2.bin", "Copy of data_batch_2.bin"),
        ("data_batch_2.bin", "DATA_BATCH_2.BIN"),
        ("data_batch_1.bin", "data_batch_1_b.bin"),
        ("test_batch.bin", "test_batch (2).bin"),
        ("test_batch.bin", "test_batch_old.bin"),
    ],
)
def test_a_copy_of_a_cifar_batch_is_refused(tmp_path, name, copy):
    batches(tmp_path, [*BATCHES, copy])
    with pytest.raises(DataError, match="leave one of them there") as refusal:
        open_data(str(tmp_path))
    assert f"'{name}'" in str(refusal.value)
    assert f"'{copy}'" in str(refusal.value)


def test_cifar_batches_are_read_in_order_and_other_files_named(tmp_path):
    batches(tmp_path, BATCHES)
    batches(tmp_path, ["data_batch_3 (1).bin"], 7)  # the only one of that number
    (tmp_path / "data_batch_1 (1).bin").write_bytes(b"cut short")
    (tmp_path / "data_batch_1.bin.md5").write_text("0123456789abcdef")
    (tmp_path / "readme.html").write_text("the archive's own")
    split = open_data(str(tmp_path))
    assert split.train.load()[0][:, 0, 0, 0].tolist() == [0, 0, 0, 0, 7, 7]
    assert [unused.name for unused in split.unused] == ["data_batch_1 (1).bin", "data_batch_1.bin.md5"]


def test_cifar_in_capitals(tmp_path):
    batches(tmp_path, [name.upper() for name in BATCHES])
    assert len(open_data(str(tmp_path)).train) == 4


# Kinds


def test_two_kinds_of_files_in_one_folder_are_refused(tmp_path):
    write(batches(tmp_path, BATCHES), 0)
    with pytest.raises(DataError, match="CIFAR-10 binary and IDX files: leave those of one kind there"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("make", [lambda folder: write(folder, 0), lambda folder: batches(folder, BATCHES)])
def test_class_folders_beside_files_of_a_set_are_named_and_counted(tmp_path, make):
    make(tmp_path)
    pictures(tmp_path / "cat", 3)
    pictures(tmp_path / "train" / "dog", 4)
    assert [(unused.name, unused.count) for unused in open_data(str(tmp_path)).unused] == [("cat/", 3), ("train/", 4)]


@pytest.mark.parametrize("name", ["train-labels.csv", "train-images.txt", "t10k-notes.txt", "test_batch.txt"])
def test_a_stray_file_does_not_change_what_a_folder_is(tmp_path, name):
    for side in ("train", "test"):
        pictures(tmp_path / side / "cat", 2)
        pictures(tmp_path / side / "dog", 2)
    (tmp_path / name).write_text("file,label\n")
    split = open_data(str(tmp_path))
    assert (split.kind, len(split.train)) == ("image folder", 4)
    assert [(unused.name, unused.count) for unused in split.unused] == [(name, 1)]


# .npz

X, Y = np.arange(240, dtype=np.uint8).reshape(60, 2, 2, 1), np.arange(60) % 3
MINE, KERAS = {"x": X, "y": Y}, {"x_train": X, "y_train": Y}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (MINE | KERAS, "has x or y, and x_train or y_train"),
        (MINE | {"x_train": X}, "has x or y, and x_train or y_train"),
        ({"x": X, "y_train": Y}, "has x or y, and x_train or y_train"),
        (MINE | {"X": X}, "has x and X|has X and x"),
        (MINE | {"x_val": X, "y_val": Y, "x_valid": X, "y_valid": Y}, "x_val or y_val, and x_valid or y_valid"),
    ],
)
def test_two_namings_in_one_npz_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"{said}.*leave one"):
        open_data(str(tmp_path / "a.npz"))


def test_arrays_that_are_not_used_are_named_and_counted(tmp_path):
    np.savez(tmp_path / "a.npz", **MINE, x_test=X, y_test=Y, x_val=X[:7], y_val=Y[:7], note=np.array("about"))
    unused = open_data(str(tmp_path / "a.npz")).unused
    assert [(one.name, one.count, one.unit) for one in unused] == [
        ("x_val", 7, "rows"),
        ("y_val", 7, "rows"),
        ("note", 1, "rows"),
    ]
