"""A device's state directory: what it needs to go on after a power cut at any moment.

    device.json             who this device is: name, secret key, session, and what the gateway said of the run
    work.safetensors        the task, as received; present as long as it is not done
    local.safetensors       where its local steps are
    update.safetensors      the finished update, or scores.json the finished scores, not delivered yet
    private-000012.safetensors   what stays on the device (`edgemeta.fed.private`)
    last.safetensors        the task done last: it holds the newest global model that this device has seen
    model.safetensors       the latest global model, where it was asked for
    personal.safetensors    the model adapted to this device

Every file is replaced by a rename. A result without its task is left over from a kill after the gateway had answered.
"""

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.errors import InputError, StorageError
from edgemeta.fed.messages import Work
from edgemeta.meta import LocalState
from edgemeta.nn.files import encode_tensors, read_tensors
from edgemeta.storage import storing, write_atomic

log = logging.getLogger("edgemeta")


class DeviceState:
    """A state directory, locked for one process; `close` lets it go. Raises StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / "lock", "wb")  # noqa: SIM115 - held open for as long as the device
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise StorageError(
                f"another process uses the state folder {path}: stop it, or give this device a folder of its own"
            ) from None
        self.work, self.local = path / "work.safetensors", path / "local.safetensors"
        self.update, self.scores = path / "update.safetensors", path / "scores.json"
        self.last, self.model = path / "last.safetensors", path / "model.safetensors"
        self.personal = path / "personal.safetensors"
        if not self.work.exists():
            self._forget_results()

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock.close()

    def identity(self) -> dict[str, Any]:
        """Return what was saved of who this device is; nothing in a new directory, or where it cannot be read."""
        path = self.path / "device.json"
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(saved, dict):
                raise ValueError("no JSON object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s is damaged (%s): this device joins as a new one", path, error)
            return {}
        return saved

    def save_identity(self, identity: Mapping[str, Any]) -> None:
        """Keep who this device is."""
        write_atomic(self.path / "device.json", [json.dumps(identity).encode()], private=True)

    def load_local(self, work: Work) -> LocalState | None:
        """Return where the local steps of a task are, or None when none are kept that can be used."""
        try:
            tensors, metadata = read_tensors(self.local)
            if metadata.get("work") != _mark(work):
                return None
            return LocalState.from_tensors(tensors)
        except (InputError, KeyError, ValueError):
            return None

    def save_local(self, work: Work, local: LocalState) -> None:
        """Keep where the local steps of a task are."""
        tensors = {name: np.asarray(array) for name, array in local.tensors().items()}
        write_atomic(self.local, encode_tensors(tensors, {"work": _mark(work)}))

    def task_done(self) -> None:
        """Make the task the last one, and drop what came of it: the gateway has it, or does not want it."""
        with storing(self.last):
            os.replace(self.work, self.last)
        self._forget_results()

    def forget_run(self) -> None:
        """Drop all that belongs to a run but the models for use, which stay until there are better ones."""
        with storing(self.path):
            for path in (self.work, self.last, self.model, *self.path.glob("private-*.safetensors")):
                path.unlink(missing_ok=True)
        self._forget_results()

    def forget_task(self) -> None:
        """Drop a task that cannot be done."""
        with storing(self.work):
            self.work.unlink(missing_ok=True)
        self._forget_results()

    def _forget_results(self) -> None:
        with storing(self.path):
            for path in (self.update, self.scores, self.local):
                path.unlink(missing_ok=True)


def _mark(work: Work) -> str:
    return json.dumps([work.round, work.participant, work.seed, work.counted, work.layout])
