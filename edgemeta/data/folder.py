"""Folders of pictures: root/CLASS/*, or the same under root/train/ and root/test/ (or root/val/)."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Array, Dataset, Indices, Split, Unused, every, split_by_content, told
from edgemeta.data.pictures import check_picture, read_picture
from edgemeta.data.places import UNREADABLE, Place, left_out, look
from edgemeta.errors import DataError, NoDataYet
from edgemeta.lengthy import lengthy
from edgemeta.names import class_name, shown

logger = logging.getLogger("edgemeta")

KIND = "image folder"
TAUGHT = "taught-"  # how a file's name begins that a device was taught: a training sample, whatever its content
NAMED = 3  # file names in a warning; the others are counted
TRAINS = "1"  # a digest of the training side
SIDES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SIDES |= dict.fromkeys(("val", "valid", "validation"), "val")  # names are compared without regard to case

Pictures = dict[str, list[str]]  # class -> its pictures' paths
Bad = list[tuple[str, str]]  # (path, what is wrong with it, which names it)


def open_folder(root: Path, shape: tuple[int, int, int]) -> Split:
    """Return the pictures in root/CLASS/*, or in root/train/CLASS/* and perhaps root/test/CLASS/*.

    Where there is no test/, a val/ with class folders takes its place; without either, a hash of each file's bytes
    decides on which side it is. Classes are the sub-folders' names, sorted; one may be empty (a device may lack a
    class). Files that are no whole pictures are skipped with a warning; all else that is not used is named in the
    Split. Raises DataError where there is nothing to learn from.
    """
    places, unused = _places(root)
    bad = Bad()
    found = [pictures_in(place, root, unused, bad) for place in places]
    classes = tuple(sorted({name for pictures in found for name in pictures}))
    if bad:
        logger.warning("%s: skipped %s", root, listed_files(bad, "no readable picture"))
    parts = [_dataset(place, pictures, classes, shape) for place, pictures in zip(places, found, strict=True)]
    if len(parts) == 2:
        return Split(parts[0], parts[1], KIND, len(bad), tuple(unused))
    digests, there = _digests([path for name in classes for path in found[0][name]])
    return split_by_content(parts[0].take(there), digests, KIND, len(bad) + there.size - len(digests), tuple(unused))


def read_all(root: Path, shape: tuple[int, int, int]) -> tuple[Array, list[str], list[str]]:
    """Return all pictures of such a folder that can be read, of both sides, as uint8 (N, H, W, C), with the class and
    the path of each; raises DataError where there are none."""
    places, unused = _places(root)
    found, bad = Pictures(), Bad()
    for place in places:
        for name, paths in pictures_in(place, root, unused, bad).items():
            found.setdefault(name, []).extend(paths)
    if bad:
        logger.warning("%s: skipped %s", root, listed_files(bad, "no readable picture"))
    everything = _dataset(places[0], found, tuple(sorted(found)), shape)
    paths = [path for name in everything.classes for path in found[name]]
    x, read = everything.read(everything.positions, everything.positions)
    labels = everything.labels[read].tolist()
    return x, [everything.classes[k] for k in labels], [paths[k] for k in read.tolist()]


def training_folder(root: Path) -> Path:
    """Return the folder in which such a folder has the classes of its training side."""
    sides = [name for name in look(root).folders if SIDES.get(name.casefold()) == "train"]
    return root / sides[0] if sides and _holds_classes(look(root / sides[0])) else root


def _dataset(place: Place, pictures: Pictures, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Dataset:
    paths = [path for name in classes for path in pictures.get(name, ())]
    if not paths:
        raise NoDataYet(
            f"{place.path} has no readable pictures in its class folders ({', '.join(classes)}): expected "
            "CLASS/PICTURE; where the classes are one level down, give one of those folders"
        )
    labels = np.repeat(every(len(classes)), [len(pictures.get(name, ())) for name in classes])
    return Dataset(labels, classes, shape, PictureReader(paths, shape), every(len(paths)))


class PictureReader:
    """Decodes pictures when they are wanted; one that cannot be is left out, with a warning."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.paths, self.shape = paths, shape

    def __call__(self, positions: Indices, labels: Indices) -> tuple[Array, Indices]:
        x = np.empty((len(positions), *self.shape), np.uint8)
        good = np.ones(len(positions), bool)
        bad = Bad()
        for row, position in enumerate(lengthy("reading pictures", positions.tolist())):
            try:
                x[row] = read_picture(self.paths[position], self.shape)
            except DataError as error:
                good[row] = False
                bad.append((self.paths[position], str(error)))
        if not bad:
            return x, labels
        if len(bad) == len(positions):
            raise DataError(f"cannot read {listed_files(bad, 'wanted')}: restore the pictures, and start again")
        logger.warning("left out %s", listed_files(bad, "unreadable"))
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
            raise _no_classes(root, DataError if top.files else NoDataYet)
        return [top], left_out(top, top.folders, "in no class folder")  # a side of plain pictures is a class: "valid"
    used = []
    for found in (train, test or [name for name in val if sides[name].folders]):
        if len(found) > 1:
            raise DataError(f"{root} has {found[0]}/ and {found[1]}/ for one side: leave one of them there")
        used += found
    for name in used:
        if not sides[name].folders:
            raise _no_classes(root / name, DataError)
    beside = "beside " + " and ".join(f"{name}/" for name in used)
    return [sides[name] for name in used], left_out(top, used, beside)


def _holds_classes(place: Place) -> bool:
    """Say whether a folder called train or the like is a side: it has class folders, and no pictures beside them."""
    return bool(place.folders) and not any(_fault(place, name) is None for name in place.files)


def _no_classes(place: Path, kind: type[DataError]) -> DataError:
    return kind(
        f"{place} has no class folders: expected pictures as CLASS/PICTURE in it or in its train/ and test/, "
        "CIFAR binary files, or IDX files"
    )


def pictures_in(place: Place, root: Path, unused: list[Unused], bad: Bad) -> Pictures:
    """Return the paths (as strings: there may be many) of each class's pictures; what else is there is added to lists.

    Folders whose names are one name in canonical form are one class. Raises DataError for a name that is none.
    """
    side = "" if place.path == root else f"{place.path.name}/"
    unused += left_out(place, place.folders, "in no class folder", side) if side else []
    found = Pictures()
    for folder in place.folders:
        with told(place.path):
            name = class_name(folder)
        try:
            inside = look(place.path / folder)
        except DataError:
            unused.append(Unused(shown(f"{side}{folder}/"), 0, UNREADABLE))
            continue
        unused += left_out(inside, inside.files, "below a class folder", f"{side}{folder}/")
        pictures = found.setdefault(name, [])
        for file in lengthy(f"looking at {shown(folder)}", [*inside.files]):
            path = os.path.join(inside.path, file)
            if (fault := _fault(inside, file)) is None:
                pictures.append(path)
            else:
                bad.append((path, fault))
    return found


def _fault(place: Place, file: str) -> str | None:
    if not place.files[file]:
        return f"{os.path.join(place.path, file)} is no file"
    try:
        check_picture(os.path.join(place.path, file))
    except DataError as error:
        return str(error)
    return None


def _digests(paths: Sequence[str]) -> tuple[list[str], NDArray[np.bool_]]:
    """Return a hash of each file's bytes, and which files have one: those that went away meanwhile are left out."""
    found, there, bad = list[str](), list[bool](), Bad()
    for path in lengthy("telling training from test", paths):
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(TRAINS if os.path.basename(path).startswith(TAUGHT) else digest)
            there.append(True)
        except OSError as error:
            bad.append((path, f"cannot read {path} ({error.strerror})"))
            there.append(False)
    if bad:
        logger.warning("left out %s", listed_files(bad, "unreadable"))
    return found, np.array(there, bool)


def listed_files(bad: Bad, which: str) -> str:
    number = "1 file" if len(bad) == 1 else f"{len(bad)} files"
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return shown(f"{number} ({which}): {', '.join([bad[0][1], *(path for path, _ in bad[1:NAMED])])}{more}")
