"""Folders of pictures: root/CLASS/*, or the same under root/train/ and root/test/ (or root/val/)."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgemeta.data.dataset import Array, Dataset, Indices, Split, Unused, every, split_by_content, told
from edgemeta.data.pictures import check_picture, read_picture
from edgemeta.data.places import UNREADABLE, Place, left_out, look
from edgemeta.errors import DataError
from edgemeta.names import class_name, shown

logger = logging.getLogger("edgemeta")

KIND = "image folder"
NAMED = 3  # file names in a warning; the others are counted
SIDES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SIDES |= dict.fromkeys(("val", "valid", "validation"), "val")  # names are compared without regard to case

Classes = dict[str, list[Place]]  # class -> its folders: one, or more whose names are one name in canonical form
Bad = list[tuple[str, str]]  # (path, what is wrong with it, which names it)


def open_folder(root: Path, shape: tuple[int, int, int]) -> Split:
    """Return the pictures in root/CLASS/*, or in root/train/CLASS/* and perhaps root/test/CLASS/*.

    Where there is no test/, a val/ with class folders takes its place; without either, a hash of each file's bytes
    decides on which side it is. Classes are the sub-folders' names, sorted; one may be empty (a device may lack a
    class). Files that are no whole pictures are skipped with a warning; all else that is not used is named in the
    Split. Raises DataError where there is nothing to learn from.
    """
    places, unused = _places(root)
    found, below = zip(*(_classes(place, root) for place in places), strict=True)
    classes = tuple(sorted({name for folders in found for name in folders}))
    unused += [what for side in below for what in side]
    parts, paths, bad = [], [], Bad()
    for place, folders in zip(places, found, strict=True):
        files, labels = _pictures(folders, classes, bad)
        if not files:
            raise DataError(
                f"{place.path} has no readable pictures in its class folders ({', '.join(classes)}): expected "
                "CLASS/PICTURE; where the classes are one level down, give one of those folders"
            )
        parts.append(Dataset(labels, classes, shape, _Reader(files, shape), every(len(files))))
        paths.append(files)
    if len(parts) == 2:
        _say_skipped(root, bad)
        return Split(parts[0], parts[1], KIND, len(bad), tuple(unused))
    digests = _digests(paths[0], bad)
    _say_skipped(root, bad)
    there = np.array([digest is not None for digest in digests], bool)
    return split_by_content(parts[0].take(there), [d for d in digests if d], KIND, len(bad), tuple(unused))


class _Reader:
    """Decodes pictures when they are wanted; one that cannot be is left out, with a warning."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.paths, self.shape = paths, shape

    def __call__(self, positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x = np.empty((len(positions), *self.shape), np.uint8)
        good = np.ones(len(positions), bool)
        bad = Bad()
        for row, position in enumerate(positions.tolist()):
            try:
                x[row] = read_picture(self.paths[position], self.shape)
            except DataError as error:
                good[row] = False
                bad.append((self.paths[position], str(error)))
        if not bad:
            return x, labels
        if len(bad) == len(positions):
            raise DataError(f"cannot read {_listed(bad, 'wanted')}: restore the pictures, and start again")
        logger.warning("left out %s", _listed(bad, "unreadable"))
        return x[good], labels[good]


def _places(root: Path) -> tuple[list[Place], list[Unused]]:
    """Return the folders that hold class folders, root itself or its sides, and what of root is not used."""
    top = look(root)
    sides = {name: look(root / name) for name in top.folders if name.casefold() in SIDES}
    if len(sides) < len(top.folders) and not any(_holds_classes(place) for place in sides.values()):
        sides = {}  # they are classes among others: of vehicles, say
    train, test, val = ([name for name in sides if SIDES[name.casefold()] == side] for side in ("train", "test", "val"))
    if not train:
        if any(place.folders for place in sides.values()):
            raise DataError(
                f"{root} has {next(iter(sides))}/ and no train/: "
                "add the training pictures, or give the folder of the classes"
            )
        if not top.folders:
            raise _no_classes(root)
        return [top], left_out(top, top.folders, "in no class folder")  # a side of plain pictures is a class: "valid"
    used = []
    for found in (train, test or [name for name in val if sides[name].folders]):
        if len(found) > 1:
            raise DataError(f"{root} has {found[0]}/ and {found[1]}/ for one side: leave one of them there")
        used += found
    for name in used:
        if not sides[name].folders:
            raise _no_classes(root / name)
    beside = "beside " + " and ".join(f"{name}/" for name in used)
    return [sides[name] for name in used], left_out(top, used, beside)


def _holds_classes(place: Place) -> bool:
    """Say whether a folder called train or the like is a side: it has class folders, and no pictures beside them."""
    return bool(place.folders) and not any(_fault(place, name) is None for name in place.files)


def _no_classes(place: Path) -> DataError:
    return DataError(
        f"{place} has no class folders: expected pictures as CLASS/PICTURE in it or in its train/ and test/, "
        "CIFAR binary files, or IDX files"
    )


def _classes(place: Place, root: Path) -> tuple[Classes, list[Unused]]:
    """Return the class folders of a side, and what lies in it and is not used; raises DataError for a bad name."""
    side = "" if place.path == root else f"{place.path.name}/"
    found: Classes = {}
    unused = left_out(place, place.folders, "in no class folder", side) if side else []
    for folder in place.folders:
        with told(place.path):
            name = class_name(folder)
        try:
            inside = look(place.path / folder)
        except DataError:
            unused.append(Unused(shown(f"{side}{folder}/"), 0, UNREADABLE))
            continue
        found.setdefault(name, []).append(inside)
        unused += left_out(inside, inside.files, "below a class folder", f"{side}{folder}/")
    return found, unused


def _pictures(folders: Classes, classes: Sequence[str], bad: Bad) -> tuple[list[str], Indices]:
    """Return the pictures' paths (as strings: there may be many) and their labels; files that are none go to `bad`."""
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for place in folders.get(name, ()):
            for file in place.files:
                if (fault := _fault(place, file)) is None:
                    paths.append(os.path.join(place.path, file))
                    labels.append(label)
                else:
                    bad.append((os.path.join(place.path, file), fault))
    return paths, np.array(labels, np.int64)


def _fault(place: Place, file: str) -> str | None:
    if not place.files[file]:
        return f"{os.path.join(place.path, file)} is no file"
    try:
        check_picture(os.path.join(place.path, file))
    except DataError as error:
        return str(error)
    return None


def _digests(paths: Iterable[str], bad: Bad) -> list[str | None]:
    """Return a hash of each file's bytes; one that went away meanwhile has none, and goes to `bad`."""
    found: list[str | None] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            found.append(None)
            bad.append((path, f"cannot read {path} ({error.strerror})"))
    return found


def _say_skipped(root: Path, bad: Bad) -> None:
    if bad:
        logger.warning("%s: skipped %s", root, _listed(bad, "no readable picture"))


def _listed(bad: Bad, which: str) -> str:
    number = "1 file" if len(bad) == 1 else f"{len(bad)} files"
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return shown(f"{number} ({which}): {', '.join([bad[0][1], *(path for path, _ in bad[1:NAMED])])}{more}")
