"""A device that is taught by another process than its own, through its state directory."""

from collections.abc import Sequence
from pathlib import Path

from edgemeta.device.device import Device
from edgemeta.device.joined import joined_before
from edgemeta.device.learned import check_teachable, held_by, use
from edgemeta.device.state import FORMAT, DeviceState, Identity
from edgemeta.device.taught import folder_of, keep
from edgemeta.errors import ConfigError, ModelFileError, StorageError
from edgemeta.meta import load_model
from edgemeta.storage import read_kept


def teach(state: Path, images: Sequence[Path], label: str) -> tuple[int, tuple[str, ...]]:
    """Keep labelled pictures for the device of a state directory, and return how many are new, and its classes.

    Where there is no device yet, one is made that has no gateway. While the device is running, it makes its own model
    of them with its next task, and the classes are those of now. Raises what `Device` and its `learn` raise.
    """
    identity = read_kept(state / "device.json", Identity, FORMAT, "start the device again")
    if identity is None:
        Device(state=state).close()
        identity = Identity(folder="")
    if identity.folder is None:
        raise ConfigError(f"the device of {state} has no folder of pictures as its data: start it once with one")
    run = joined_before(identity)
    check_teachable(run)
    source = identity.folder or None
    count = sum(keep(folder_of(source, state), image, label) is not None for image in images)
    try:
        device = DeviceState(state)
    except StorageError:  # it is running
        return count, _classes(state / "personal.safetensors")
    try:
        if held := held_by(device, run, source):
            use(held, device, identity)
        return count, _classes(device.personal)
    finally:
        device.close()


def _classes(path: Path) -> tuple[str, ...]:
    try:
        return load_model(path).classes
    except ModelFileError:
        return ()
