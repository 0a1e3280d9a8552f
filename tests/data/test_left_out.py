"""Image folders as they are found: sides by other names, what is left out and said, and what goes away meanwhile."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from rawfiles import idx, pictures

from edgemeta.data import describe, open_data
from edgemeta.data import folder as folder_reader
from edgemeta.errors import DataError


def classes(root, count=2, start=0, names=("cat", "dog")):
    for i, name in enumerate(names):
        pictures(root / name, count, start + 100 * i)
    return root


def opened(root):
    return open_data(str(root), shape=(1, 1, 1))


def left_out(split):
    return {unused.name: unused.count for unused in split.unused}


def greys(data):
    return sorted(data.load()[0].ravel().tolist())


# Sides


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "Training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "Val", "valid", "VALIDATION"])
def test_sides_by_their_usual_names(tmp_path, train, test):
    classes(tmp_path / train)
    classes(tmp_path / test, start=10)
    split = opened(tmp_path)
    assert greys(split.train) == [0, 1, 100, 101]
    assert greys(split.test) == [10, 11, 110, 111]
    assert split.unused == ()


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_validation_beside_test_is_named_and_counted(tmp_path, name, caplog):
    classes(tmp_path / "train")
    classes(tmp_path / "test", start=10)
    classes(tmp_path / name, count=3, start=20)
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert greys(split.test) == [10, 11, 110, 111]
    assert left_out(split) == {f"{name}/": 6}
    assert f"not used: {name}/ (6 files, beside train/ and test/)" in caplog.text


def test_a_validation_folder_without_classes_is_no_test_side(tmp_path):
    classes(tmp_path / "train", count=30)
    pictures(tmp_path / "val", 5)
    split = opened(tmp_path)
    assert len(split.train) + len(split.test) == 60
    assert left_out(split) == {"val/": 5}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train", "Train", "test"), "Train/ and train/ for one side"),
        (("train", "training"), "train/ and training/"),
        (("train", "test", "Test"), "Test/ and test/"),
        (("train", "val", "valid"), "val/ and valid/"),
        (("val",), "has val/ and no train/"),
        (("test", "val"), "and no train/"),
    ],
)
def test_sides_that_are_there_twice_or_alone_are_refused(tmp_path, names, said):
    for name in names:
        classes(tmp_path / name)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


def test_what_lies_beside_and_in_the_sides_is_named_and_counted(tmp_path, caplog):
    classes(tmp_path / "train")
    classes(tmp_path / "test", start=10)
    classes(tmp_path / "extra", count=4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.csv").write_text("file,label\n")
    pictures(tmp_path / "train", 1)
    (tmp_path / "test" / "notes.txt").write_text("about")
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert (len(split.train), len(split.test), split.skipped) == (4, 4, 0)
    assert left_out(split) == {"extra/": 8, "labels.csv": 1, "train/000.png": 1, "test/notes.txt": 1}
    assert len(caplog.records) == 1
    for words in ("extra/ (8 files, beside train/ and test/)", "labels.csv (1 file, ", "train/000.png (1 file, in no "):
        assert words in caplog.text
    facts = json.loads(json.dumps(describe(split)))
    assert facts["unused"][0] == {"name": "extra/", "count": 8, "why": "beside train/ and test/", "unit": "files"}


@pytest.mark.parametrize("name", ["train", "test", "Train", "valid", "validation"])
def test_a_class_may_be_called_as_a_side_is(tmp_path, name):
    classes(tmp_path, count=30, names=("bus", "car", name))
    assert set(opened(tmp_path).train.classes) == {"bus", "car", name}
    classes(tmp_path / name, names=("steam", "electric"))  # pictures below it do not make it a side
    split = opened(tmp_path)
    assert len(split.train) + len(split.test) == 90
    assert left_out(split) == {f"{name}/electric/": 2, f"{name}/steam/": 2}


def test_a_device_may_have_one_class_that_is_called_as_a_side_is(tmp_path):
    pictures(tmp_path / "valid", 30)  # "invalid" is another device's
    assert opened(tmp_path).train.classes == ("valid",)


# Below a class


def test_pictures_below_a_class_are_named_and_counted(tmp_path, caplog):
    classes(tmp_path, count=30)
    pictures(tmp_path / "cat" / "second-visit", 3)
    pictures(tmp_path / "cat" / "second-visit" / "deeper", 2)
    (tmp_path / "cat" / "second-visit" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "dog" / "empty").mkdir()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert len(split.train) + len(split.test) == 60
    assert left_out(split) == {"cat/second-visit/": 5}
    assert "not used: cat/second-visit/ (5 files, below a class folder)" in caplog.text


# What systems leave behind

LITTER = ["__MACOSX", "@eaDir", "System Volume Information", "lost+found", "$RECYCLE.BIN", "RECYCLER", "FOUND.000"]
LITTER += [".Trash-1000", "#recycle", "@Recycle", "LOST.DIR", "Thumbs", ".ipynb_checkpoints", "__pycache__", ".git"]


@pytest.mark.parametrize("name", LITTER + [name.swapcase() for name in LITTER if name != "Thumbs"])
def test_folders_that_systems_leave_behind_are_no_classes(tmp_path, name, caplog):
    classes(tmp_path / "train")
    classes(tmp_path / "test", start=10)
    pictures(tmp_path / "train" / name / "cat", 2)
    pictures(tmp_path / name, 3)
    pictures(tmp_path / "test" / "dog" / name, 1)
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert split.train.classes == ("cat", "dog")
    assert left_out(split) == {f"{name}/": 3, f"train/{name}/": 2, f"test/dog/{name}/": 1}
    assert f"{name}/ (3 files, left behind by a system)" in caplog.text


def test_names_that_only_resemble_them_are_classes(tmp_path):
    names = ("@home", "found", "lost", "recycled", "thumbs", "trash")
    classes(tmp_path, count=10, names=names)
    assert opened(tmp_path).train.classes == names


def test_files_that_systems_leave_behind_are_not_worth_a_word(tmp_path, caplog):
    classes(tmp_path, count=30)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", "Icon\r", "ehthumbs.db"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / "cat" / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert (split.skipped, split.unused, caplog.records) == (0, (), [])


def test_names_with_control_characters_are_shown_escaped(tmp_path, caplog):
    classes(tmp_path, count=30)
    (tmp_path / "a\x1b[31m\n.txt").write_text("about")
    (tmp_path / "cat" / "b\x1b[31m.png").write_bytes(b"no picture")
    os.makedirs(os.fsencode(tmp_path / "cat") + b"/\xff/x")
    (tmp_path / os.fsdecode(b"cat/\xff/x") / "y.png").write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert "\x1b" not in caplog.text
    assert left_out(split) == {"a\\x1b[31m\\n.txt": 1, "cat/\\udcff/": 1}
    json.dumps(describe(split), ensure_ascii=False).encode()


# What cannot be read

as_another_user = pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED: root reads everything")


@pytest.fixture
def locked(monkeypatch):
    """Lock folders by name, for root too, whom permissions do not stop: the system's answer is made here."""
    names = set()
    real = os.scandir

    def scandir(path):
        if os.path.basename(os.fspath(path)) in names:
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return names


def test_an_unreadable_folder_is_said_and_the_rest_used(tmp_path, locked, caplog):
    classes(tmp_path, count=30)
    pictures(tmp_path / "private", 3)
    pictures(tmp_path / "lost+found", 3)
    pictures(tmp_path / "cat" / "hidden", 3)
    locked |= {"private", "lost+found", "hidden"}
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
    assert split.train.classes == ("cat", "dog")
    assert len(split.train) + len(split.test) == 60
    assert {(one.name, one.why) for one in split.unused} == {
        ("private/", "it cannot be read"),
        ("cat/hidden/", "it cannot be read"),
        ("lost+found/", "it cannot be read"),
    }
    assert "private/ (0 files, it cannot be read)" in caplog.text
    locked.add("train")
    classes(tmp_path / "train")
    with pytest.raises(DataError, match=r"cannot read .*train: Permission denied"):
        opened(tmp_path)


@as_another_user
def test_the_system_s_own_answer_to_an_unreadable_folder(tmp_path):
    classes(tmp_path, count=30)
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "private").mkdir(mode=0)
    assert opened(tmp_path).train.classes == ("cat", "dog")


def test_a_link_to_itself_is_a_bad_file_and_no_end(tmp_path):
    classes(tmp_path, count=30)
    os.symlink("loop.png", tmp_path / "cat" / "loop.png")
    os.symlink("round", tmp_path / "round")
    os.symlink("../cat", tmp_path / "dog" / "linked")
    split = opened(tmp_path)
    assert (len(split.train) + len(split.test), split.skipped) == (60, 1)
    assert left_out(split) == {"round": 1, "dog/linked/": 31}


# What goes away meanwhile


@pytest.mark.parametrize("sides", [True, False])
def test_a_picture_that_goes_away_while_the_folder_is_looked_at_is_left_out(tmp_path, sides, monkeypatch, caplog):
    root = tmp_path / "train" if sides else tmp_path
    classes(root, count=30)
    if sides:
        classes(tmp_path / "test")
    real = folder_reader.check_picture

    def check(path):
        real(path)
        if path.endswith(os.path.join("cat", "007.png")):
            os.unlink(path)

    monkeypatch.setattr(folder_reader, "check_picture", check)
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = opened(tmp_path)
        values = [*greys(split.train), *([] if sides else greys(split.test))]
    assert sorted(values) == [*range(7), *range(8, 30), *range(100, 130)]
    assert "007.png" in caplog.text


def test_a_picture_that_cannot_be_read_any_more_is_left_out(tmp_path, caplog):
    classes(tmp_path / "train", count=3)
    classes(tmp_path / "test")
    split = opened(tmp_path)
    (tmp_path / "train" / "cat" / "000.png").unlink()
    (tmp_path / "train" / "cat" / "000.png").mkdir()
    (tmp_path / "train" / "cat" / "001.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "edgemeta"):
        assert greys(split.train) == [2, 100, 101, 102]
    assert "left out 2 files" in caplog.text


def test_a_folder_that_goes_away_is_an_error_with_what_to_do(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test")
    split = opened(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataError, match="restore the pictures"):
        split.train.load()
    with pytest.raises(DataError, match="no train/"):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*gone: No such file"):  # between two looks
        folder_reader.open_folder(tmp_path / "gone", (1, 1, 1))


# Classes without training samples, by every reader


def as_folder(path, train, test):
    for side, labels in (("train", train), ("test", test)):
        for label in (0, 1, 2):
            pictures(path / side / str(label), labels.count(label))
    return path


def as_npz(path, train, test):
    path.mkdir()
    arrays = {name: np.zeros((len(y), 2, 2, 1), np.uint8) for name, y in (("x", train), ("x_test", test))}
    np.savez(path / "a.npz", **arrays, y=train, y_test=test, classes=["0", "1", "2"])
    return path / "a.npz"


def as_idx(path, train, test):
    path.mkdir()
    for side, labels in (("train", train), ("t10k", test)):
        (path / f"{side}-images-idx3-ubyte").write_bytes(idx(np.zeros((len(labels), 2, 2))))
        (path / f"{side}-labels-idx1-ubyte").write_bytes(idx(labels))
    return path


@pytest.mark.parametrize("make", [as_folder, as_npz, as_idx])
def test_a_class_that_only_the_test_data_has_is_said(tmp_path, make, caplog):
    with caplog.at_level(logging.WARNING, "edgemeta"):
        open_data(str(make(tmp_path / "a", [0, 1, 1], [0, 2, 2])))
    assert "no training samples of 2 (2 for testing)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        open_data(str(make(tmp_path / "b", [0, 2, 2], [0, 2])))
    assert "no samples of 1" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        open_data(str(make(tmp_path / "c", [0, 1, 2], [0, 2])))
    assert not caplog.records
