"""What a device is taught: labelled pictures that count at once, without a training step.

A picture lies in the device's folder of pictures, or, where its data is no folder, in the state directory. It is a
training sample of later rounds, and never one that is scored.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta import disk
from edgemeta.data.folder import read_all
from edgemeta.data.pictures import read_picture
from edgemeta.device.joined import Joined
from edgemeta.device.own import Source, root_of
from edgemeta.device.personal import InUse, newest, settings_of
from edgemeta.device.state import DeviceState, Identity
from edgemeta.device.tasks import Tasks
from edgemeta.device.taught import folder_name, folder_of, keep, remove, rename
from edgemeta.errors import DataError, InputError, ModelFileError, NoDataYet
from edgemeta.fed.participants import Participant
from edgemeta.meta import Samples, TrainedModel, load_model, owned
from edgemeta.meta.adaptations import features, with_prototypes
from edgemeta.meta.trained import SHIPPED
from edgemeta.nn import Model, Vector
from edgemeta.reading import exists
from edgemeta.storage import storing


@dataclass
class Held:
    """What a device holds, as one model's embeddings: z (N, E), the N labels, and files (Path(): none)."""

    network: Model
    theta: Vector
    round: int
    z: Vector
    labels: list[str]
    paths: list[Path]

    def model(self, reject: float) -> TrainedModel:
        """Return the model whose classes are the means of what is held; reject: as in the run's evaluations."""
        names, places = np.unique(np.array(self.labels), return_inverse=True)
        own = with_prototypes(self.network, self.theta, self.z, places.reshape(-1).astype(np.int64), reject)
        return owned(own, names.tolist(), self.round)


class Learning:
    """The part of a Device that is taught and that predicts."""

    _state: DeviceState
    _identity: Identity
    _tasks: Tasks
    _run: Joined | None
    _in_use: InUse
    _turn: threading.RLock  # one call at a time, but for those that only look
    _closed: bool
    _held: Held | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that `predict` tells apart, in the order of its answer; none before there is a model of them."""
        self._check_open()
        model = self._in_use.model(self._run)
        return model.classes if model else ()

    def predict(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (classes,) of one image (H, W, C), or (B, classes) of a batch; needs no gateway.

        With the personalised model; before there is one, with the newest global model that has come. Raises DataError
        when none has come yet and nothing was taught, for another shape, and for values neither of bytes nor from 0 to
        1; StorageError.
        """
        personal = self._model()
        probabilities, shape = personal.predict(image), personal.network.input_shape
        return probabilities[0] if np.shape(image) in (shape, shape[:2]) else probabilities

    def unlike(self, image: NDArray[Any]) -> bool:
        """Return whether an image (H, W, C) is like none of the classes, where the run has a rate for it.

        `evaluation.reject` is that rate; raises as `predict` does.
        """
        return bool(self._model().unlike(image)[0])

    def _model(self) -> TrainedModel:
        self._check_open()
        model = self._in_use.model(self._run)
        if model is None:
            raise DataError(
                "no model has come from the gateway yet, and nothing was taught: call step() until a task has come, or "
                "learn(image, label)"
            )
        return model

    def learn(self, image: NDArray[Any] | str | Path, label: str) -> None:
        """Take a labelled picture: when this returns it is on disk, and `predict` knows it.

        image: a picture's file, or an array (H, W, C) of any size, as `predict` takes them. It costs one forward pass,
        and the first time one of each picture that the device holds. Before an embedding has come from the gateway, it
        is that of the start that ships; where the run has pictures of another shape, it is kept and counts later.
        Raises DataError for what is no picture, a label that is no name, a run whose classes have common names, and
        data that is a part of what others have, too; StorageError when it cannot be written.
        """
        with self._turn:
            self._check_open()
            check_teachable(self._run)
            path = keep(folder_of(self._tasks.source, self._state.path), image, label)
            self._tasks.release()
            if self._held is None or path is None:
                self._hold()
            else:
                x = read_picture(path, picture_shape(self._held.network))[np.newaxis]
                z = self._held.network.forward(self._held.theta, x)
                self._held.z = np.concatenate([self._held.z, z])
                self._held.labels.append(folder_name(label))
                self._held.paths.append(path)
                self._use(self._held)

    def forget(self, label: str) -> None:
        """Remove what was taught under a label, which may be the last one; raises DataError where there is nothing."""
        with self._turn:
            self._check_open()
            remove(folder_of(self._tasks.source, self._state.path), label)
            self._tasks.release()
            self._hold()

    def rename(self, label: str, name: str) -> None:
        """Call what was taught under a label by another name, which may have pictures already; raises as `forget`."""
        with self._turn:
            self._check_open()
            rename(folder_of(self._tasks.source, self._state.path), label, name)
            self._tasks.release()
            self._hold()

    def _hold(self) -> None:
        """Make the model anew of all that the device holds, where there is an embedding to make it with."""
        run, source = self._run, self._tasks.source
        found = newest(self._state, run) if run and source is not None and root_of(source) is None else None
        if run and found:
            self._held = held_in_part(self._tasks.data(run), run.network, found.vectors["theta"], found.round)
            self._tasks.release()
        else:
            self._held = held_by(self._state, run, source)
        if self._held:
            self._use(self._held)

    def _use(self, held: Held) -> None:
        self._in_use.renew(use(held, self._state, self._identity))

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("this Device was closed: make a new one")


def check_teachable(run: Joined | None) -> None:
    """Raise DataError for a run whose classes have common names."""
    if run and not run.network.embeds:
        known = ", ".join(run.run.classes)
        raise DataError(f"this run's classes have common names ({known}): put the picture in the folder of its class")


def held_by(state: DeviceState, run: Joined | None, source: Source | None) -> Held | None:
    """Return what a device holds under the newest embedding that has come, before one has under the start that ships.

    None where neither is of use.
    """
    if run and not run.network.embeds:
        return None
    root = folder_of(source, state.path, training=False)
    if run and (found := newest(state, run)):
        return held_in(root, run.network, found.vectors["theta"], found.round)
    start = _start_for(state, run)
    return held_in(root, start.network, start.theta, start.round) if start else None


def _start_for(state: DeviceState, run: Joined | None) -> TrainedModel | None:
    """Return the start that ships, but for a run of pictures of another shape, and a device that has had a run's."""
    start = load_model(SHIPPED)
    if run and run.network.input_shape != start.network.input_shape:
        return None
    try:
        used = load_model(state.personal)
    except ModelFileError:
        return start
    return start if np.array_equal(used.theta[: start.theta.size], start.theta) else None


def use(held: Held, state: DeviceState, who: Identity) -> TrainedModel | None:
    """Make what is held the model for use, on disk too; where nothing is, there is none."""
    if not held.labels:
        with storing(state.personal):
            disk.remove(state.personal)
        return None
    model = held.model(settings_of(who.adaptation)[0].reject)
    model.save(state.personal)
    return model


def held_in(root: Path, network: Model, theta: Vector, number: int) -> Held:
    """Return what all pictures of a folder come to, one forward pass each; raises DataError for another folder."""
    shape = picture_shape(network)
    nothing = Held(network, theta, number, np.empty((0, network.outputs), np.float32), [], [])
    if not exists(root):
        return nothing
    try:
        x, labels, paths = read_all(root, shape)
    except NoDataYet:  # all is forgotten
        return nothing
    z = features(network, theta, Samples(x, np.zeros(len(x), np.int64)))
    return Held(network, theta, number, z, labels, list(map(Path, paths)))


def held_in_part(part: Participant, network: Model, theta: Vector, number: int) -> Held:
    """Return what all samples of a device come to, whose data is no folder; with them, what it was taught."""
    x, y = (np.concatenate([getattr(side, of) for side in (part.train, part.test)]) for of in ("x", "y"))
    z = features(network, theta, Samples(x, y))
    return Held(network, theta, number, z, [part.train_set.classes[k] for k in y.tolist()], [Path()] * len(y))


def picture_shape(network: Model) -> tuple[int, int, int]:
    """Return the shape of a network's pictures; raises DataError where it takes none."""
    if len(network.input_shape) != 3:
        raise DataError(f"this run's samples have shape {network.input_shape}: only pictures can be taught one by one")
    height, width, channels = network.input_shape
    return height, width, channels
