"""The model that a device uses itself: the newest global one that it has, adapted to its own data."""

import logging
import threading
from typing import Any, NamedTuple

import numpy as np

from edgemeta.config import EvaluationConfig
from edgemeta.device.joined import Joined
from edgemeta.device.state import DeviceState
from edgemeta.errors import ConfigError, ModelFileError
from edgemeta.fed.messages import Work, read_work
from edgemeta.fed.participants import Participant
from edgemeta.fed.private import OwnHead, load_head
from edgemeta.fed.progress import Stage
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import Own, Samples, TrainedModel, adapt_as, load_model, owned
from edgemeta.meta.adaptations import begun
from edgemeta.meta.learner import Vectors
from edgemeta.meta.personal_heads import OWN_HEAD, with_own_head
from edgemeta.nn import Vector
from edgemeta.nn.files import load_parameters
from edgemeta.records import record_from

log = logging.getLogger("edgemeta")


class Global(NamedTuple):
    """A global model that has come. round: which led to it; own: the head that this device has for it, if it has one.

    Where theta travels without a head, its vector may be of the body alone: then there is an own head.
    """

    vectors: Vectors
    round: int
    own: OwnHead | None


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


def own_head(state: DeviceState, work: Work) -> OwnHead | None:
    """Return the head that this device has of its own for a task's model, if there is one; a damaged one is not."""
    try:
        return load_head(state.path, work.counted, work.recipe.algorithm)
    except ModelFileError as error:
        log.warning("%s: the model is taken without it", error)
        return None


def newest(state: DeviceState, run: Joined) -> Global | None:
    """Return the newest global model in a state directory, or None."""
    found: dict[int, Global] = {}
    for path in (state.work, state.last):
        try:
            work, vectors = read_work(path, run.network)
        except ModelFileError:
            continue
        number, own = model_round(work), own_head(state, work)
        if own or vectors["theta"].size == run.network.layout.size:
            found[number] = Global({name: np.asarray(vector) for name, vector in vectors.items()}, number, own)
    try:
        kept = load_parameters(state.model)
    except ModelFileError:
        pass
    else:
        if kept.model.layout == run.network.layout:
            beside = found[kept.round].vectors if kept.round in found else {}  # a head is in no model file
            own = found[max(found)].own if found else None
            found[kept.round] = Global({**beside, "theta": kept.theta}, kept.round, own)
    return found[max(found)] if found else None


def personalise(state: DeviceState, run: Joined, model: Global, part: Participant, how: Settings) -> None:
    """Adapt a global model, and keep it as this device's own.

    With the draws of that round's evaluation, so that the scores "after" adaptation are the kept model's; but for
    prototypes of own classes, which are of all samples that the device holds, as nobody scores them any more.
    """
    (settings, batch_size), train = how, part.train
    rng = generator(run.run.seed, Stream.EVALUATION, model.round, run.participant)
    support = train.take(rng.permutation(train.size)[: settings.support])
    if run.network.embeds and settings.adaptation in (None, "prototypes") and not settings.adapt_steps:
        support = Samples(np.concatenate([train.x, part.test.x]), np.concatenate([train.y, part.test.y]))
    beside, classes = _beside(model, part), part.train_set.classes
    network, theta, rates = begun(settings, run.network, model.vectors["theta"], beside, len(classes))
    own = adapt_as(settings, network, theta, support, batch_size, rng, rates=rates)
    run.network.release()
    if not np.isfinite(own.theta).all():
        log.warning("adapting the model of round %d diverged: it is used as it is", model.round)
        own = Own(network, theta)
    owned(own, classes, model.round).save(state.personal)


def _beside(model: Global, part: Participant) -> dict[str, Vector]:
    """Return what goes beside the model's theta, the device's own head as that of the classes that it has now."""
    own = {OWN_HEAD: model.own.of(part.train_set.classes)} if model.own else {}
    return {name: vector for name, vector in model.vectors.items() if name != "theta"} | own


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
        if run is None or found is None:
            return None
        theta, classes = np.array(found.vectors["theta"]), run.run.classes
        if found.own is None:
            return TrainedModel(run.network, theta, classes, found.round)
        return TrainedModel(*with_own_head(run.network, theta, found.own.vector), found.own.classes, found.round)
