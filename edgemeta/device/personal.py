"""The model that a device uses itself: the newest global one that it has, adapted to its own data."""

import logging
import threading
from typing import Any

import numpy as np

from edgemeta.config import EvaluationConfig
from edgemeta.device.joined import Joined
from edgemeta.device.state import DeviceState
from edgemeta.errors import ConfigError, ModelFileError
from edgemeta.fed.messages import Work, read_work
from edgemeta.fed.participants import Participant
from edgemeta.fed.progress import Stage
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import Own, Samples, TrainedModel, adapt_as, load_model, owned
from edgemeta.meta.adaptations import begun
from edgemeta.meta.learner import Vectors
from edgemeta.meta.rivals import HEAD
from edgemeta.nn import Vector
from edgemeta.nn.files import load_parameters
from edgemeta.records import record_from

log = logging.getLogger("edgemeta")

Settings = tuple[EvaluationConfig, int]  # how evaluations of the run adapt, and at which batch size


def settings_of(kept: Any) -> Settings:
    """Return what was kept of the run's way to adapt, or the usual one where no evaluation has told it yet."""
    try:
        return record_from(EvaluationConfig, kept["evaluation"]), int(kept["batch_size"])
    except (TypeError, KeyError, ValueError, ConfigError):
        return EvaluationConfig(), 32


def model_round(work: Work) -> int:
    """Return the round that led to the model which a task carries."""
    return work.round if work.kind is Stage.EVALUATE else work.round - 1


def newest(state: DeviceState, run: Joined) -> tuple[dict[str, Vector], int] | None:
    """Return the newest global model in a state directory, as its vectors, and the round that led to it, or None."""
    found: dict[int, dict[str, Vector]] = {}
    for path in (state.work, state.last):
        try:
            work, vectors = read_work(path, run.network)
        except ModelFileError:
            continue
        found[model_round(work)] = {name: np.asarray(vector) for name, vector in vectors.items()}
    try:
        kept = load_parameters(state.model)
    except ModelFileError:
        pass
    else:
        if kept.model.layout == run.network.layout:
            found[kept.round] = found.get(kept.round, {}) | {"theta": kept.theta}  # a head is in no model file
    return (found[max(found)], max(found)) if found else None


def personalise(
    state: DeviceState, run: Joined, vectors: Vectors, number: int, part: Participant, how: Settings
) -> None:
    """Adapt the model of round `number`, and keep it as this device's own.

    With the draws of that round's evaluation, so that the scores "after" adaptation are the kept model's; but for
    prototypes of own classes, which are of all samples that the device holds, as nobody scores them any more.
    """
    (settings, batch_size), train = how, part.train
    rng = generator(run.run.seed, Stream.EVALUATION, number, run.participant)
    support = train.take(rng.permutation(train.size)[: settings.support])
    if run.network.embeds and settings.adaptation in (None, "prototypes") and not settings.adapt_steps:
        support = Samples(np.concatenate([train.x, part.test.x]), np.concatenate([train.y, part.test.y]))
    theta = vectors["theta"]
    start = begun(settings, run.network, theta, vectors.get(HEAD), len(part.train_set.classes))
    own = adapt_as(settings, *start, support, batch_size, rng)
    run.network.release()
    if not np.isfinite(own.theta).all():
        log.warning("adapting the model of round %d diverged: it is used as it is", number)
        own = Own(run.network, theta)
    owned(own, part.train_set.classes, number).save(state.personal)


class InUse:
    """The model to predict with, read when it is first asked for; any thread may ask while another one renews it."""

    def __init__(self, state: DeviceState) -> None:
        self._state, self._renewed, self._lock = state, 0, threading.Lock()
        self._model: TrainedModel | None = None

    def renew(self, model: TrainedModel | None = None) -> None:
        """Take a newer one, or have it read the next time that somebody asks."""
        with self._lock:
            self._renewed, self._model = self._renewed + 1, model

    def model(self, run: Joined | None) -> TrainedModel | None:
        """Return the personalised model, before there is one the newest global one, or None; raises StorageError."""
        model, renewed = self._model, self._renewed
        if model is None:
            model = _in_use(self._state, run)
            with self._lock:
                if renewed == self._renewed:
                    self._model = model
        return model


def _in_use(state: DeviceState, run: Joined | None) -> TrainedModel | None:
    try:
        return load_model(state.personal)
    except ModelFileError:
        found = newest(state, run) if run else None
        return (
            TrainedModel(run.network, np.array(found[0]["theta"]), run.run.classes, found[1]) if run and found else None
        )
