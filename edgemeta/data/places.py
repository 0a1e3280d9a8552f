"""What lies in a folder, without what cards, desktops and network drives leave behind there."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemeta.data.dataset import Unused, reading
from edgemeta.names import shown

# Without regard to case; but "thumbs" may be a class of gestures, and "recycled" one of waste.
LITTER_FOLDERS = re.compile(
    r"\..*|__macosx|__pycache__|@(eadir|recycle|recently-snapshot|sharebin|tmp|__thumb)|#(recycle|snapshot)"
    r"|lost\+found|lost\.dir|found\.\d{3}|system volume information|\$recycle\.bin|recycler|network trash folder"
    r"|temporary items|(?-i:Thumbs|THUMBS|RECYCLED)",
    re.IGNORECASE | re.DOTALL,
)
LITTER_FILES = re.compile(
    r"\..*|(eh)?thumbs(_vista)?\.db|desktop\.ini|picasa\.ini|autorun\.inf|icon\r", re.IGNORECASE | re.DOTALL
)
UNREADABLE = "it cannot be read"


@dataclass(frozen=True)
class Place:
    """A folder's sub-folders and files, sorted by name.

    files: name -> whether it is a regular file, and no pipe or broken link; those of LITTER_FILES are gone. litter:
    the sub-folders of LITTER_FOLDERS, which are not among `folders`.
    """

    path: Path
    folders: tuple[str, ...]
    files: Mapping[str, bool]
    litter: tuple[str, ...]


def look(path: Path) -> Place:
    """Return what lies in a folder; raises DataError where it cannot be read."""
    with reading(path), os.scandir(path) as entries:
        found = sorted((entry.name, _is(entry, "is_dir"), _is(entry, "is_file")) for entry in entries)
    folders = [name for name, is_folder, _ in found if is_folder]
    litter = tuple(name for name in folders if LITTER_FOLDERS.fullmatch(name))
    files = {name: regular for name, is_folder, regular in found if not is_folder and not is_litter_file(name)}
    return Place(path, tuple(name for name in folders if name not in litter), files, litter)


def is_litter_file(name: str) -> bool:
    """Say whether a file manager or a system left this file behind; hidden files count as such."""
    return LITTER_FILES.fullmatch(name) is not None


def left_out(place: Place, used: Collection[str], why: str, below: str = "") -> list[Unused]:
    """Return what lies in a folder and is not among the names in `used`; empty folders are not worth a word.

    below: the folder's own name, where that is to be shown before theirs.
    """
    folders = [_counted(place, name, why, below) for name in place.folders if name not in used]
    files = [Unused(shown(below + name), 1, why) for name in place.files if name not in used]
    litter = [_counted(place, name, "left behind by a system", below) for name in place.litter]
    return [one for one in folders if one.count or one.why == UNREADABLE] + files + litter


def _counted(place: Place, name: str, why: str, below: str) -> Unused:
    errors: list[OSError] = []
    walk = os.walk(place.path / name, onerror=errors.append)
    count = sum(not is_litter_file(file) for _, _, files in walk for file in files)
    return Unused(shown(f"{below}{name}/"), count, UNREADABLE if errors and not count else why)


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return bool(getattr(entry, kind)())
    except OSError:  # a link to itself, say
        return False
