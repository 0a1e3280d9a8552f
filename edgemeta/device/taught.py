"""The pictures that a device is taught, as files: below its folder of pictures, or in its state directory."""

import hashlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgemeta import disk
from edgemeta.data.folder import TAUGHT, training_folder
from edgemeta.data.pictures import as_png, check_picture, pixels_of, read_picture
from edgemeta.device.own import LEARNED, Source, root_of
from edgemeta.errors import DataError
from edgemeta.names import class_name
from edgemeta.reading import exists, followed, names, read_file
from edgemeta.storage import storing, write_atomic

MOST_PICTURES = 10_000  # that are kept there: some 50 MB of small ones
MOST_NAME_BYTES = 200  # of a folder's name; file systems take 255


def folder_of(source: Source | None, state: Path, *, training: bool = True) -> Path:
    """Return where the pictures lie that a device is taught, or those of the training side."""
    if source is None or (root := root_of(source)) is None:
        return state / LEARNED
    return training_folder(root) if training and exists(root) else root


def folder_name(label: str) -> str:
    """Return a class's name as a folder can have it: the slash as another one that looks the same; raises DataError."""
    name = class_name(label) if isinstance(label, str) else ""
    name = name.replace("/", "\u2215")
    if not name or name.startswith(".") or len(name.encode()) > MOST_NAME_BYTES:
        raise DataError(
            f"the label {label!r:.80}: expected text of 1 to {MOST_NAME_BYTES} bytes that does not begin with a dot"
        )
    return name


def keep(folder: Path, image: NDArray[Any] | str | Path, label: str) -> Path | None:
    """Write a picture below a folder, durably, under its label, and return its path; None where it is there already."""
    name, content = folder_name(label), _content(image)
    path = folder / name / f"{TAUGHT}{hashlib.sha256(content).hexdigest()[:24]}"
    if exists(path):
        return None
    if folder.name == LEARNED and sum(len(names(folder / label)) for label in _labels(folder)) >= MOST_PICTURES:
        raise DataError(
            f"{MOST_PICTURES} pictures are kept already: forget some, or give this device a folder as its data"
        )
    with storing(path):
        disk.make_folder(folder, named=True)
        disk.make_folder(path.parent)
    write_atomic(path, [content])
    return path


def remove(folder: Path, label: str) -> None:
    """Remove the pictures that were taught under a label; raises DataError where there are none, or others too."""
    place, there = _taught(folder, label, "forget", "remove them")
    with storing(place):
        for name in there:
            disk.remove(place / name)
        disk.remove_folder(place)
        disk.sync_folder(folder)


def rename(folder: Path, label: str, name: str) -> None:
    """Put the pictures that were taught under a label under another one; raises DataError as `remove` does."""
    (place, there), new = _taught(folder, label, "rename", "rename them"), folder / folder_name(name)
    if new == place:
        return
    with storing(new):
        disk.make_folder(new)
        for one in there:
            disk.rename(place / one, new / one)
        disk.sync_folder(new)  # before the other one goes
        disk.remove_folder(place)
        disk.sync_folder(folder)


def _taught(folder: Path, label: str, what: str, instead: str) -> tuple[Path, list[str]]:
    place = folder / folder_name(label)
    there = names(place) if exists(place) else []
    others = [name for name in there if not name.startswith(TAUGHT)]
    if others:
        raise DataError(f"cannot {what} '{label}': {len(others)} pictures in {place} were not taught: {instead} there")
    if not there:
        raise DataError(f"cannot {what} '{label}': it was not taught")
    return place, there


def _labels(folder: Path) -> list[str]:
    return names(folder) if exists(folder) else []


def _content(image: NDArray[Any] | str | Path) -> bytes:
    """Return a picture as the bytes of a file: as it is, or of an array as PNG."""
    if isinstance(image, str | Path):
        check_picture(image)
        read_picture(image, (8, 8, 3))  # all of it
        content = read_file(followed(image))
        if content is None:
            raise DataError(f"{image} is gone")
        return content
    return as_png(pixels_of(image))


def teachable_folder(source: Source | None) -> str | None:
    """Return the folder of a device's data, for another process; "" for no data, None for data that is no folder."""
    if source is None:
        return ""
    root = root_of(source)
    return None if root is None else str(root.absolute())
