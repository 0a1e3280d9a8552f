"""What a script calls: functions that bring the rooms together with the clock and the file system."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.config import OWN, RunConfig, config_from, read_settings, to_dict
from edgemeta.data import Split, check_apart, check_several, open_data
from edgemeta.data.arrays import named_splits, own_splits
from edgemeta.data.fingerprint import fingerprint
from edgemeta.data.leftout import LeftOut, one_sided
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.comparison import alone, fedavg_of
from edgemeta.fed.participants import Participant, check_episodes, divide, left_over, with_own_classes
from edgemeta.fed.plan import CUSTOM, network_of, resolve
from edgemeta.fed.simulation import RunResult, run
from edgemeta.jobs import processes
from edgemeta.meta import LEARNERS, TrainedModel, load_model
from edgemeta.meta.learners import numbers_classes
from edgemeta.names import canonical, listed
from edgemeta.nn import Model, Vector
from edgemeta.nn.heads import give_head

log = logging.getLogger("edgemeta")

MODEL_FILE = "model.safetensors"  # in a run directory
Arrays = tuple[Any, Any]  # samples and labels
Config = RunConfig | Mapping[str, Any] | str | Path


def simulate(
    config: Config,
    *,
    data: Iterable[tuple[Arrays, Arrays]] | None = None,
    model: Model | None = None,
    out: str | Path | None = None,
    init: str | Path | None = None,
    jobs: int = 1,
    threads: int = 1,
    **hooks: Any,
) -> RunResult:
    """Run all of a configuration in this process, or go on with the run in `out`, and return what it leads to.

    config: a RunConfig, a dict of settings, the path of a TOML file, or a preset's name. data: one's own, as
    ((x_train, y_train), (x_test, y_test)) for each participant, labelled by names, or by numbers whose names, if they
    have any, are the setting model.classes; see `edgemeta.data.from_arrays`. model: one's own network. out: the run
    directory; without one nothing is kept. init: a model file to start from. jobs: processes among which the
    participants' work is shared out; threads: how many share a step of one participant, in a network of the
    configuration's (one's own has its own number). Both leave the result the same. hooks: `on_round` and the like of
    `edgemeta.fed.run`. Raises ConfigError, DataError, StorageError, and DivergedError when the loss is not finite.
    """
    settings = config_of(config)
    if model is None:
        settings, model = own_network(settings, init, None if out is None else Path(out) / MODEL_FILE)
    return start(prepare(settings, data, model, threads), out, init, jobs, **hooks)


@dataclass(frozen=True)
class Prepared:
    """A run that can start. data: what was divided among the participants, or their own; left_out: what nobody has."""

    config: RunConfig
    network: Model
    participants: list[Participant]
    data: tuple[Split, ...]
    left_out: LeftOut


def start(
    prepared: Prepared, out: str | Path | None = None, init: str | Path | None = None, jobs: int = 1, **hooks: Any
) -> RunResult:
    """Run what `prepare` made ready; see `simulate`."""
    begun = out is not None and Path(out, "progress.json").exists()
    if begun and init is not None:
        log.warning("%s holds a run that goes on: --init (init=) is for one that begins, and is not looked at", out)
    names = prepared.config.model.names
    theta = initial(prepared.network, prepared.config.seed, None if begun else init, names)
    with processes(jobs) as each:
        return run(
            *(prepared.config, prepared.network, prepared.participants),
            out=None if out is None else Path(out),
            theta=theta,
            clock=time.monotonic,
            each=each,
            data=None if out is None else fingerprint(prepared.data),
            left_out=prepared.left_out,
            **hooks,
        )


def name_of(config: RunConfig) -> str:
    """Return what a run is called beside its baselines: its algorithms, in order."""
    return ", then ".join(dict.fromkeys(phase.algorithm for phase in config.phases))


def baselines(prepared: Prepared, jobs: int = 1, **hooks: Any) -> dict[str, Mapping[str, Any]]:
    """Return the summaries of plain FedAvg, and of everyone training alone, on a run's budget of gradients."""
    plain = replace(prepared, config=fedavg_of(prepared.config))
    theta = prepared.network.init(prepared.config.seed)
    return {
        "fedavg": start(plain, jobs=jobs, **hooks).summary,
        "each alone": alone(prepared.config, prepared.network, theta, prepared.participants),
    }


def config_of(config: Config) -> RunConfig:
    """Return the settings in any of the forms that `simulate` takes as a checked RunConfig; raises ConfigError."""
    if isinstance(config, RunConfig):  # made by hand, perhaps
        config = to_dict(config)
    if isinstance(config, str | Path):
        config = read_settings(config)
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"the configuration is {type(config).__name__}: "
            "expected a dict of settings, a RunConfig, the path of a TOML file, or a preset's name"
        )
    return config_from(config)


def own_network(config: RunConfig, *files: str | Path | None) -> tuple[RunConfig, Model | None]:
    """Return a run's network that has no name, and the settings with its input shape and classes; else None.

    That is where model.name is "custom": the network is that of the first model file given; the last one may not be
    there, as it is a run's own. Raises ConfigError when there is none.
    """
    if config.model.name != CUSTOM:
        return config, None
    *given, own = files
    found = next((file for file in given if file is not None), own if own and Path(own).is_file() else None)
    if found is None:
        raise ConfigError("model.name is 'custom': give the model file that has the network, as --init MODEL (init=)")
    start = load_model(found)
    classes = OWN if start.network.embeds else start.classes
    asked = replace(config.model, input_shape=start.network.input_shape, classes=classes)
    return replace(config, model=asked), start.network


def prepare(
    config: RunConfig,
    data: Iterable[tuple[Arrays, Arrays]] | None = None,
    model: Model | None = None,
    threads: int = 1,
) -> Prepared:
    """Open the data and resolve the configuration with what it says; raises ConfigError and DataError."""
    splits: tuple[Split, ...]
    if data is None:
        split = open_data(config.data.source, shape=config.model.input_shape, seed=config.seed)
        most = most_classes(split, config) if config.model.own else None
        resolved = resolve(config, split.train.shape, split.train.classes, model, most)
        participants, _ = divide(split, resolved.data, resolved.seed)
        splits, unused = (split,), left_over(split, participants, resolved.data)
        if config.model.own:
            participants = [with_own_classes(participant) for participant in participants]
    else:
        if config.data.validation or config.data.label_noise or config.data.pixel_noise:
            raise ConfigError("data.validation and noise are for data that is cut here: prepare your own arrays so")
        splits = tuple(_own_splits(data, config, model))
        participants = [Participant(split.train, split.test, k) for k, split in enumerate(splits)]
        first, unused = splits[0].train, LeftOut(why=() if config.model.own else tuple(one_sided(splits)))
        config = replace(config, data=replace(config.data, source="arrays", participants=len(participants)))
        most = max(len(split.train.classes) for split in splits)
        resolved = resolve(config, first.shape, first.classes, model, most)
    if config.model.own:
        check_apart(participant.train_set for participant in participants)
    elif model is None or model.classifies:
        check_several(participant.train_set for participant in participants)
    if model and resolved.model.most_classes:
        give_head(model, resolved.model.most_classes)
    check_episodes(participants, resolved.evaluation)
    return Prepared(resolved, model or network_of(resolved, threads), participants, splits, unused)


def most_classes(split: Split, config: RunConfig) -> int | None:
    """Return how many classes a participant has at most of a data set that is cut; None where it cannot be cut so."""
    try:
        participants, _ = divide(split, config.data, config.seed)
    except DataError:
        return None
    return max(len(with_own_classes(participant).train_set.classes) for participant in participants)


def _own_splits(data: Iterable[tuple[Arrays, Arrays]], config: RunConfig, model: Model | None) -> list[Split]:
    classes = config.model.classes
    if isinstance(classes, str):  # every participant has its own
        return named_splits(data)
    return own_splits(data, classes, model.outputs if model else None)


def gateway_data(config: RunConfig) -> tuple[Split] | None:
    """Return the data that a gateway has to open itself, to know the model's input shape and its classes' names.

    None where the configuration gives both. Only labels are read. Raises DataError.
    """
    heads = not all(p.algorithm in LEARNERS and not numbers_classes(p.algorithm) for p in config.phases)
    enough = not heads or config.model.most_classes if config.model.own else config.model.names
    if config.model.input_shape is not None and enough:
        return None
    return (open_data(config.data.source, shape=config.model.input_shape, seed=config.seed),)


def prepare_gateway(
    config: RunConfig, data: tuple[Split] | None = None, model: Model | None = None
) -> tuple[RunConfig, Model]:
    """Return the resolved configuration and the network of a run whose data stays on the devices.

    data: what `gateway_data` returned, if it has been asked before. model: one's own network. Raises ConfigError and
    DataError.
    """
    shape, classes, most = config.model.input_shape, config.model.names, config.model.most_classes
    if found := data or gateway_data(config):
        shape, classes = found[0].train.shape, found[0].train.classes
        most = most_classes(found[0], config) if config.model.own else most
    assert shape is not None  # or there would be data
    resolved = resolve(config, shape, classes, model, most)
    if model and resolved.model.most_classes:
        give_head(model, resolved.model.most_classes)
    return resolved, model or network_of(resolved)


def initial(network: Model, seed: int, init: str | Path | None, classes: tuple[str, ...] = ()) -> Vector:
    """Return where a run starts: the parameters in a model file, or new ones; raises ConfigError on another layout.

    classes: of the run; none where they have no common names. A class that the file's model knows keeps its part of the
    last layer, wherever it stands in either list; the others begin, in order, with what is left over there.
    """
    if init is None:
        return network.init(seed)
    start = load_model(init)
    if start.network.layout != network.layout:
        raise ConfigError(
            f"{init} holds a model of layout {start.network.layout.fingerprint}, and this run's network has "
            f"{network.layout.fingerprint}: give a model of the same network, input shape and classes"
        )
    if not classes or not network.classifies:
        return start.theta
    if [*map(canonical, classes)] == [*map(canonical, start.classes)]:
        return start.theta
    return _by_name(network, start, classes, init)


def _by_name(network: Model, start: TrainedModel, classes: Sequence[str], init: str | Path) -> Vector:
    """Return a model's parameters with the last layer's outputs in the order of other classes."""
    known = {canonical(name): number for number, name in enumerate(start.classes)}
    asked = [known.get(canonical(name)) for name in classes]
    left = iter(sorted(set(range(len(known))) - {*asked}))
    order = [next(left) if number is None else number for number in asked]
    theta = np.array(start.theta)
    views = network.layout.views(theta)
    last = [*views][-1].rpartition(".")[0]
    for name, view in views.items():
        if name.rpartition(".")[0] == last and view.shape[-1] == len(order):
            view[...] = view[..., order]
    new = [name for name, number in zip(classes, asked, strict=True) if number is None]
    log.warning(
        "%s has its classes in another order, and they are taken by name%s",
        *(init, f"; new to it: {listed(new)}" if new else ""),
    )
    return theta
