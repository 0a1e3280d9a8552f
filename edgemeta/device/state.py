"""A device's state directory: what it needs to go on after a power cut at any moment.

    device.json             who this device is: name, secret key, session, and what the gateway said of the run
    work.safetensors        the task, as received; present as long as it is not done
    local.safetensors       where its local steps are
    update.safetensors      the finished update, or scores.json the finished scores, not delivered yet
    private-000012.safetensors   what stays on the device (`edgemeta.fed.private`)
    last.safetensors        the task done last: it holds the newest global model that this device has seen
    model.safetensors       the latest global model, where it was asked for
    personal.safetensors    the model adapted to this device
    learned/LABEL/          pictures that it was taught, where it was given no data of its own
    page/                   the certificate of its page, where that is open to other machines
    *.damaged               what was found damaged, as it was

Every file is replaced by a rename. A result without its task is left over from a kill after the gateway had answered.
What cannot be read is not taken for absent or damaged: that is a StorageError, and the same is tried again.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta import disk
from edgemeta.errors import ModelFileError, StorageError
from edgemeta.fed.messages import Work
from edgemeta.fed.private import private_files
from edgemeta.folders import check_device
from edgemeta.meta import LocalState
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.reading import exists
from edgemeta.storage import Damaged, held_here, lock, read_kept, set_aside, storing, write_atomic, write_kept

log = logging.getLogger("edgemeta")

FORMAT = "edgemeta-device/1"


@dataclass(frozen=True)
class Identity:
    """Who a device is. key: its secret, made before it first joins; token: the hash of the one that it joined with.

    folder: of its pictures, "" where it was given no data, None where that is no folder. joined: the answer to its
    join, but for the session. personal: the round of the model that is adapted to it; adaptation: how evaluations of
    the run adapt.
    """

    key: str = ""
    server: str = ""
    name: str = ""
    partition_id: int | None = None
    token: str = ""
    session: str | None = None
    joined: dict[str, Any] | None = None
    personal: int | None = None
    folder: str | None = None
    adaptation: dict[str, Any] | None = None


class DeviceState:
    """A state directory, locked for one process; `close` lets it go. Raises StorageError, ConfigError for another's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_device(path)
        with storing(path):
            disk.make_folder(path, named=True)
        held = lock(path / "lock")
        if held is None and held_here(path / "lock"):
            raise StorageError(
                f"this process has the state folder {path} open: close() the Device that has it, or give this one a "
                "folder of its own"
            )
        if held is None:
            raise StorageError(
                f"another process uses the state folder {path}: stop it, or give this device a folder of its own"
            )
        self._lock = held
        self.work, self.local = path / "work.safetensors", path / "local.safetensors"
        self.update, self.scores = path / "update.safetensors", path / "scores.json"
        self.last, self.model = path / "last.safetensors", path / "model.safetensors"
        self.personal = path / "personal.safetensors"
        self._identity = path / "device.json"
        try:
            if not exists(self.work):
                self._forget_results()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process use the directory."""
        if self._lock >= 0:
            disk.system.close(self._lock)
            self._lock = -1

    def identity(self) -> Identity:
        """Return what was saved of who this device is; nobody yet in a new directory.

        A damaged file is set aside, and the device joins as a new one. Raises ConfigError for one of a newer version,
        StorageError when it cannot be read.
        """
        try:
            return (
                read_kept(self._identity, Identity, FORMAT, "it is set aside, and this device joins anew") or Identity()
            )
        except Damaged as error:
            log.error("%s", error)
            set_aside(self._identity)
            return Identity()

    def save_identity(self, identity: Identity) -> None:
        """Keep who this device is."""
        write_kept(self._identity, identity, FORMAT, private=True)

    def load_local(self, work: Work, rows: Sequence[str]) -> LocalState | None:
        """Return where the local steps of a task are, or None when none are kept; damaged ones are set aside.

        rows: the classes of an own head among the vectors; steps with one of other classes are of no use.
        """
        if not exists(self.local):
            return None
        try:
            tensors, metadata = read_tensors(self.local)
            return LocalState.from_tensors(tensors) if metadata.get("work") == _mark(work, rows) else None
        except (ModelFileError, KeyError, ValueError) as error:
            log.warning("the local steps are lost, %s: %r", set_aside(self.local), error)
            return None

    def save_local(self, work: Work, local: LocalState, rows: Sequence[str]) -> None:
        """Keep where the local steps of a task are."""
        tensors = {name: np.asarray(array) for name, array in local.tensors().items()}
        write_atomic(self.local, encode_tensors(tensors, {"work": _mark(work, rows)}), private=True)

    def task_done(self) -> None:
        """Make the task the last one, and drop what came of it: the gateway has it, or does not want it."""
        with storing(self.last):
            disk.rename(self.work, self.last)
        self._forget_results()

    def forget_run(self) -> None:
        """Drop all that belongs to a run but the models for use, which stay until there are better ones."""
        with storing(self.path):
            for path in (self.work, self.last, self.model, *(self.path / name for name in private_files(self.path))):
                disk.remove(path)
        self._forget_results()

    def forget_task(self) -> None:
        """Drop a task that cannot be done."""
        with storing(self.work):
            disk.remove(self.work)
        self._forget_results()

    def _forget_results(self) -> None:
        with storing(self.path):
            for path in (self.update, self.scores, self.local):
                disk.remove(path)


def gateway_of(path: Path) -> str:
    """Return the URL of the gateway that the device of a state directory had; "" where it had none."""
    kept = read_kept(path / "device.json", Identity, FORMAT, "start the device with its gateway's URL, or a join file")
    return kept.server if kept else ""


def _mark(work: Work, rows: Sequence[str]) -> str:
    return json.dumps([work.round, work.participant, work.seed, work.counted, work.layout, *rows])
