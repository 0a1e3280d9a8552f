"""What a device shows of itself to who stands before it: its pictures, and what it sees in another one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.folder import TAUGHT
from edgemeta.data.pictures import stretched
from edgemeta.data.places import look
from edgemeta.device.device import Device
from edgemeta.device.learned import Learning, check_teachable, picture_shape
from edgemeta.device.state import FORMAT, Identity
from edgemeta.device.taught import folder_of
from edgemeta.errors import ConfigError, DataError
from edgemeta.names import canonical
from edgemeta.reading import exists
from edgemeta.storage import read_kept


@dataclass(frozen=True)
class Shown:
    """What a device holds of one class. files: of its pictures, in the device's folder of them; own: all were taught,
    so that it can be forgotten."""

    label: str
    files: tuple[str, ...]
    own: bool


@dataclass(frozen=True)
class Seen:
    """What a device sees in a picture. answer: (class, probability), the likeliest first; nearest: (class, file).

    unlike: whether it is like none of the classes.
    """

    answer: list[tuple[str, float]]
    unlike: bool
    nearest: list[tuple[str, str]]


def device_of(state: Path) -> Device:
    """Return the device of a state directory as it was last started, but for its gateway; a new one where none is.

    Raises ConfigError for one whose data is no folder, and what `Device` raises.
    """
    identity = read_kept(state / "device.json", Identity, FORMAT, "start the device again") or Identity(folder="")
    if identity.folder is None:
        raise ConfigError(f"the device of {state} has no folder of pictures as its data: start it once with one")
    return Device(None, identity.folder or None, state, identity.name or None)


def name_of(device: Device) -> str:
    """Return what a gateway calls a device."""
    return device._identity.name


def not_teachable(device: Learning) -> str:
    """Return why a device cannot be taught by pictures, or ""."""
    try:
        check_teachable(device._run)
        folder_of(device._tasks.source, device._state.path)
    except DataError as error:
        return str(error)
    return ""


def pictures(device: Learning) -> list[Shown]:
    """Return the pictures that a device learns from, by class; raises DataError where their folder cannot be read."""
    if not_teachable(device):
        return []
    folder, root = (_folder(device, training=training) for training in (True, False))
    found = []
    for name in look(folder).folders if exists(folder) else ():
        files = [file for file, regular in look(folder / name).files.items() if regular]
        if files:
            taught = all(file.startswith(TAUGHT) for file in files)
            below = (folder / name).relative_to(root)
            found.append(Shown(canonical(name), tuple(str(below / file) for file in files), taught))
    return found


def picture(device: Learning, file: str) -> Path | None:
    """Return the path of a picture that a device holds, None where there is none of that name."""
    parts = file.split("/")  # an empty one at its begin would lead out of the folder, as ".." does
    if not 2 <= len(parts) <= 3 or any(part[:1] in ("", ".") or not part.isprintable() for part in parts):
        return None
    path = _folder(device, training=False) / file
    return path if path.is_file() else None


def _folder(device: Learning, *, training: bool) -> Path:
    return folder_of(device._tasks.source, device._state.path, training=training)


def see(device: Learning, pixels: NDArray[np.uint8], nearest: int) -> Seen:
    """Return what a device sees in a picture (H, W, 3) of any size. nearest: of how many pictures that it holds.

    The nearest are by embedding, so that there are none in a run whose classes have common names. Raises what `predict`
    raises.
    """
    model = device._in_use.model(device._run)
    x: NDArray[Any] = stretched(pixels, picture_shape(model.network)) if model else pixels
    chances = device.predict(x).tolist()
    answer = sorted(zip(device.classes, chances, strict=True), key=lambda pair: -pair[1])
    return Seen(answer, device.unlike(x), _nearest(device, x, nearest))


def _nearest(device: Learning, x: NDArray[Any], count: int) -> list[tuple[str, str]]:
    with device._turn:
        if device._held is None and not not_teachable(device):
            device._hold()
        held = device._held
        if held is None or x.shape != held.network.input_shape:
            return []
        z = held.network.forward(held.theta, x[np.newaxis])
        order = np.square(held.z - z).sum(axis=1).argsort(kind="stable").tolist()
        root, files = _folder(device, training=False), held.paths
        return [(held.labels[k], str(files[k].relative_to(root))) for k in order if files[k] != Path()][:count]
