"""Omniglot's folders, made on the spot, and the partition by the participants that data itself names."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import edgemeta
from edgemeta.cli import _status
from edgemeta.config import DataConfig
from edgemeta.data import describe, open_data, parse_partition, partition
from edgemeta.errors import DataError
from edgemeta.fed.participants import divide, left_over

ALPHABETS = {"Greek": 3, "Korean": 2, "Latin": 4}
PEOPLE = range(14, 19)  # of these, 16 and more draw for testing: two for training, three for testing


@pytest.fixture(scope="module")
def omniglot(tmp_path_factory):
    """Three alphabets; the picture of a drawing says by its grey value which character it is of."""
    root, number = tmp_path_factory.mktemp("data") / "omniglot", 0
    for alphabet, characters in ALPHABETS.items():
        for character in range(1, characters + 1):
            number += 1
            folder = root / alphabet / f"character{character:02d}"
            folder.mkdir(parents=True)
            for person in PEOPLE:
                pixels = np.full((105, 105), 10 * number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{100 + number:04d}_{person:02d}.png")
    return root


def test_characters_are_classes_of_their_alphabets(omniglot):
    split = open_data(str(omniglot))
    assert split.kind == "Omniglot"
    assert split.train.shape == (28, 28, 1)
    assert split.train.classes[:4] == (
        "Greek/character01",
        "Greek/character02",
        "Greek/character03",
        "Korean/character01",
    )
    assert (len(split.train), len(split.test)) == (9 * 2, 9 * 3)
    assert split.train.owners.names == ("Greek", "Korean", "Latin")
    for side in (split.train, split.test):
        for label, owner in zip(side.labels, side.owners.numbers, strict=True):
            assert side.classes[label].startswith(side.owners.names[owner])
    x, y = split.test.load()
    assert np.array_equal(x[:, 0, 0, 0], 10 * (y + 1))  # each picture has the label of its folder
    assert describe(split)["participants"] == ["Greek", "Korean", "Latin"]


def test_people_draw_for_one_side_only(omniglot):
    split = open_data(str(omniglot))
    people = {"train": set(), "test": set()}
    for side in ("train", "test"):
        data = getattr(split, side)
        people[side] = {data.read.paths[i][-6:-4] for i in data.positions.tolist()}
    assert people == {"train": {"14", "15"}, "test": {"16", "17", "18"}}


def test_the_model_says_another_shape(omniglot):
    x, _ = open_data(str(omniglot), shape=(32, 32, 3)).train.load()
    assert x.shape == (18, 32, 32, 3)


def test_what_is_no_drawing_is_named(omniglot, tmp_path, caplog):
    import shutil

    root = tmp_path / "o"
    shutil.copytree(omniglot, root)
    (root / "README.txt").write_text("x")
    (root / "strokes").mkdir()
    (root / "strokes" / "a.txt").write_text("x")
    (root / "Latin" / "notes").mkdir()
    (root / "Latin" / "notes" / "b.txt").write_text("x")
    (root / "Latin" / "character01" / "0106_15.png").write_bytes(b"no picture")
    (root / "Latin" / "character02" / "0107_14.png").rename(root / "Latin" / "character02" / "mine.png")
    split = open_data(str(root))
    assert (split.skipped, len(split.train)) == (1, 16)
    named = {unused.name: unused.why for unused in split.unused}
    assert named == {
        "README.txt": "in no alphabet's folder",
        "strokes/": "in no alphabet's folder",
        "Latin/notes/": "in no character's folder",
        "Latin/character02/mine.png": "not named as a drawing, 0123_04.png",
    }
    assert "0106_15.png" in caplog.text


def test_drawings_of_one_side_are_refused(tmp_path):
    folder = tmp_path / "Greek" / "character01"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "0001_03.png")
    with pytest.raises(DataError, match="1 drawings, 0 of them by people numbered 16 and more"):
        open_data(str(tmp_path))


def test_a_natural_partition_has_an_alphabet_for_each(omniglot):
    split = open_data(str(omniglot))
    config = DataConfig(participants=3, held_out=1, partition="natural")
    drawn = set()
    for seed in range(8):
        people, left = divide(split, config, seed)
        owners = [set(person.train_set.owners.numbers.tolist()) for person in people]
        assert sorted(owners, key=min) == [{0}, {1}, {2}]
        assert [set(person.test_set.owners.numbers.tolist()) for person in people] == owners
        assert sorted(len(person.train_set) for person in people) == [4, 6, 8]  # not made equal
        assert left == (0, 0)
        drawn.add(tuple(min(owner) for owner in owners))
    assert len({order[-1] for order in drawn}) == 3  # which alphabet is held out is drawn
    assert any(np.diff(person.train_set.labels).min() < 0 for person in people)  # in random order
    again, _ = divide(split, config, 0)
    first, _ = divide(split, config, 0)
    assert [a.train_set.positions.tolist() for a in again] == [b.train_set.positions.tolist() for b in first]


def test_fewer_participants_leave_alphabets_out_and_that_is_said(omniglot):
    split, config = open_data(str(omniglot)), DataConfig(participants=2, partition="natural")
    people, left = divide(split, config, 0)
    used = sum(len(person.train_set) for person in people)
    assert left[0] == 18 - used > 0
    (why,) = left_over(split, people, config).why
    assert why.startswith("no participant has ")


def test_natural_of_too_few_or_unnamed_participants_is_refused(omniglot):
    split = open_data(str(omniglot))
    with pytest.raises(
        DataError, match=r"participants is 4, and the data names 3 \(Greek, Korean, Latin\): give 1 to 3"
    ):
        divide(split, DataConfig(participants=4, partition="natural"), 0)
    with pytest.raises(DataError, match="this data names no participants"):
        divide(open_data("synthetic"), DataConfig(partition="natural"), 0)
    with pytest.raises(DataError, match="labels alone name no participants"):
        partition([0, 1], [0, 1], 2, 2, "natural", np.random.default_rng(0))
    with pytest.raises(DataError, match="no partition 'natural:3'"):
        parse_partition("natural:3")


def test_a_run_over_alphabets(omniglot, tmp_path, capsys):
    settings = {
        "model": {"name": "mlp", "input_shape": [8, 8, 1]},
        "data": {"source": str(omniglot), "participants": 3, "held_out": 1, "partition": "natural"},
        "phases": [{"algorithm": "fedavg", "rounds": 2, "local_steps": 2, "batch_size": 4}],
    }
    result = edgemeta.simulate(settings)
    assert len(result.model.classes) == 9
    assert result.history[-1]["evaluation_new"]["before"]["accuracy"]["mean"] == 0  # nobody trained its classes
    assert _status(["data", "info", str(omniglot), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["participants"] == ["Greek", "Korean", "Latin"]


def test_what_a_device_cuts_is_what_the_simulation_cut(omniglot):
    from edgemeta.device.own import own_part

    split = open_data(str(omniglot), shape=(8, 8, 1))
    config = DataConfig(source=str(omniglot), participants=3, partition="natural")
    people, _ = divide(split, config, 5)
    cut = own_part(str(omniglot), (8, 8, 1), split.train.classes, replace(config, source="synthetic"), 5, 1, cut=True)
    assert cut.train_set.positions.tolist() == people[1].train_set.positions.tolist()
    assert np.array_equal(cut.train.x, people[1].train.x)
