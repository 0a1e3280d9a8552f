"""Folders of pictures: root/CLASS/*, or the same under root/train/ and root/test/."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgemeta.data.dataset import Array, Dataset, Indices, Split, check_several, every, reading, split_by_content
from edgemeta.data.pictures import is_whole, read_picture
from edgemeta.errors import DataError

logger = logging.getLogger("edgemeta")

KIND = "image folder"
NAMED = 3  # file names in a warning; the others are counted
LITTER = {"thumbs.db", "desktop.ini"}  # what file managers leave behind; hidden files are litter too


def open_folder(root: Path, shape: tuple[int, int, int]) -> Split:
    """Return the pictures in root/CLASS/*, or root/train/CLASS/* and perhaps root/test/CLASS/*.

    Classes are the sub-folders' names, sorted; one may be empty (a device may lack a class). Files that are no whole
    pictures are skipped with a warning. Without test/, a hash of each file's bytes decides on which side it is.
    Raises DataError where there is nothing to learn from.
    """
    places = _places(root)
    classes = tuple(sorted({name for place in places for name in _folders(place)}))
    if odd := [name for name in classes if not name.isprintable()]:
        raise DataError(f"{root}: the class folder {odd[0]!r} has a name that cannot be shown: rename it")
    found = [_pictures(place, classes) for place in places]
    skipped = [path for _, _, bad in found for path in bad]
    if skipped:
        logger.warning("%s: skipped %s", root, _listed(skipped, "no readable picture"))
    parts = []
    for place, (paths, labels, _) in zip(places, found, strict=True):
        if not paths:
            raise DataError(
                f"{place} has no readable pictures in its class folders ({_shown(classes)}): expected CLASS/PICTURE; "
                "where the classes are one level down, give one of those folders"
            )
        parts.append(Dataset(labels, classes, shape, _Reader(paths, shape), every(len(paths))))
    check_several(classes, root)
    for i, name in enumerate(classes):
        if not any((part.labels == i).any() for part in parts):
            logger.warning("%s: the class folder %s has no pictures", root, name)
    if len(parts) == 2:
        return Split(parts[0], parts[1], KIND, len(skipped))
    return split_by_content(parts[0], _digests(found[0][0]), KIND, len(skipped))


class _Reader:
    """Decodes pictures when they are wanted; one that cannot be is left out, with a warning."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.paths, self.shape = paths, shape

    def __call__(self, positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x = np.empty((len(positions), *self.shape), np.uint8)
        good = np.ones(len(positions), bool)
        bad = []
        for row, position in enumerate(positions.tolist()):
            try:
                x[row] = read_picture(self.paths[position], self.shape)
            except DataError:
                good[row] = False
                bad.append(self.paths[position])
        if not bad:
            return x, labels
        if len(bad) == len(positions):
            raise DataError(f"cannot read {_listed(bad, 'wanted')}: restore the pictures, and start again")
        logger.warning("left out %s", _listed(bad, "unreadable"))
        return x[good], labels[good]


def _places(root: Path) -> list[Path]:
    """Return the folders that hold class folders: root itself, or its train/ and perhaps test/."""
    folders = _folders(root)
    sides = [side for side in ("train", "test") if side in folders]
    if len(folders) > len(sides) and not any(_folders(root / side) for side in sides):
        sides = []  # they are classes among others: of vehicles, say
    places = [root / side for side in sides] or [root]
    if sides == ["test"]:
        raise DataError(f"{root} has test/ and no train/: add the training pictures, or give the folder of the classes")
    for place in places:
        if not _folders(place):
            raise DataError(
                f"{place} has no class folders: expected pictures as CLASS/PICTURE in it or in its train/ and test/, "
                "CIFAR-10 binary files, or IDX files"
            )
    return places


def _folders(place: Path) -> list[str]:
    with reading(place), os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _pictures(place: Path, classes: Iterable[str]) -> tuple[list[str], Indices, list[str]]:
    """Return the pictures' paths (as strings: there may be many), their labels, and the paths of files that are bad."""
    paths: list[str] = []
    labels: list[int] = []
    bad: list[str] = []
    for label, name in enumerate(classes):
        folder = place / name
        if not folder.is_dir():
            continue
        with reading(folder), os.scandir(folder) as entries:
            files = sorted((entry.name, entry.is_file()) for entry in entries if not entry.is_dir())
        for file, regular in files:
            if file.startswith(".") or file.lower() in LITTER:
                continue
            path = os.path.join(folder, file)
            if regular and is_whole(path):
                paths.append(path)
                labels.append(label)
            else:
                bad.append(path)
    return paths, np.array(labels, np.int64), bad


def _digests(paths: Iterable[str]) -> list[str]:
    found = []
    for path in paths:
        with reading(Path(path)), open(path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def _listed(paths: Sequence[str], which: str) -> str:
    number = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{number} ({which}): {_shown(paths[:NAMED])}{more}"


def _shown(names: Iterable[str]) -> str:
    # A name that is no UTF-8 cannot be printed as it is.
    return ", ".join(name.encode("utf-8", "backslashreplace").decode() for name in names)
