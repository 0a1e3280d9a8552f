"""Omniglot's folders: ALPHABET/character01/0123_04.png, handwritten by twenty people (Lake et al. 2015).

An alphabet is a participant, and its characters are classes that nobody else has.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgemeta.data.dataset import Dataset, Indices, Owners, Split, Unused, every
from edgemeta.data.folder import Bad, PictureReader, listed_files, logger, pictures_in
from edgemeta.data.places import Place, left_out, look
from edgemeta.errors import DataError
from edgemeta.names import class_name, shown

KIND = "Omniglot"
SHAPE = (28, 28, 1)  # as few-shot work has them (Vinyals et al. 2016), where the model does not say
CHARACTER = re.compile(r"character\d+")
DRAWING = re.compile(r"\d+_(\d+)\.png")
TEST_PEOPLE = 16  # this one and all after it: a quarter of the people draw for testing only


class Drawing(NamedTuple):
    """A picture of a character, by the person of that number."""

    path: str
    alphabet: str
    character: str
    person: int


def has_alphabets(place: Place) -> bool:
    """Say whether a folder's sub-folders are alphabets."""
    return any(_is_alphabet(os.path.join(place.path, name)) for name in place.folders)


def open_omniglot(root: Path, shape: tuple[int, int, int]) -> Split:
    """Return the drawings below root: classes "ALPHABET/character01", owned by their alphabets.

    The people numbered 16 and more draw the test samples: 15 + 5 of each character in the data as it is published.
    Files that are no whole pictures are skipped with a warning; what else is not used is named in the Split. Raises
    DataError where there are no drawings on one of the two sides.
    """
    bad, unused = Bad(), list[Unused]()
    drawings = _drawings(root, unused, bad)
    if bad:
        logger.warning("%s: skipped %s", root, listed_files(bad, "no readable picture"))
    test = np.array([one.person >= TEST_PEOPLE for one in drawings], bool)
    if test.all() or not test.any():
        raise DataError(
            f"{root} has {len(drawings)} drawings, {test.sum()} of them by people numbered {TEST_PEOPLE} and more: "
            "expected ALPHABET/character01/0123_04.png, with drawings of both for training and testing"
        )
    alphabets, owners = _numbered([one.alphabet for one in drawings])
    classes, labels = _numbered([f"{one.alphabet}/{one.character}" for one in drawings])
    reader = PictureReader([one.path for one in drawings], shape)
    whole = Dataset(labels, classes, shape, reader, every(len(drawings)), owners=Owners(alphabets, owners))
    return Split(whole.take(~test), whole.take(test), KIND, len(bad), tuple(unused))


def _drawings(root: Path, unused: list[Unused], bad: Bad) -> list[Drawing]:
    """Return all drawings, by alphabet and character; what else is there is added to lists."""
    found, top = list[Drawing](), look(root)
    alphabets = [name for name in top.folders if _is_alphabet(os.path.join(root, name))]
    unused += left_out(top, alphabets, "in no alphabet's folder")
    for alphabet in alphabets:
        place = look(root / alphabet)
        characters = tuple(name for name in place.folders if CHARACTER.fullmatch(name))
        unused += left_out(place, characters, "in no character's folder", f"{alphabet}/")
        for character, paths in pictures_in(Place(place.path, characters, {}, ()), root, unused, bad).items():
            for path in paths:
                if (named := DRAWING.fullmatch(os.path.basename(path))) is None:
                    unused.append(Unused(shown(os.path.relpath(path, root)), 1, "not named as a drawing, 0123_04.png"))
                else:
                    found.append(Drawing(path, class_name(alphabet), character, int(named[1])))
    return found


def _numbered(values: Sequence[str]) -> tuple[tuple[str, ...], Indices]:
    """Return the names there are, in order, and each value's number among them."""
    names = tuple(sorted(set(values)))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[value] for value in values], np.int64)


def _is_alphabet(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:  # by name alone: a class folder may have thousands of pictures
            return any(CHARACTER.fullmatch(entry.name) and entry.is_dir() for entry in entries)
    except OSError:
        return False
