"""What a script calls: functions that bring the rooms together with the clock and the file system."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import RunConfig, config_from, read_settings
from edgemeta.data import Dataset, check_several, from_arrays, open_data
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.comparison import alone, fedavg_of
from edgemeta.fed.participants import Participant, divide
from edgemeta.fed.plan import network_of, resolve
from edgemeta.fed.simulation import RunResult, run
from edgemeta.jobs import processes
from edgemeta.meta import load_model
from edgemeta.nn import Model, Vector

Arrays = tuple[NDArray[Any], NDArray[Any]]
Config = RunConfig | Mapping[str, Any] | str | Path


def simulate(
    config: Config,
    *,
    data: Sequence[tuple[Arrays, Arrays]] | None = None,
    model: Model | None = None,
    out: str | Path | None = None,
    init: str | Path | None = None,
    jobs: int = 1,
    threads: int = 1,
    **hooks: Any,
) -> RunResult:
    """Run all of a configuration in this process, or go on with the run in `out`, and return what it leads to.

    config: a RunConfig, a dict of settings, the path of a TOML file, or a preset's name. data: one's own, as
    ((x_train, y_train), (x_test, y_test)) for each participant, with integer labels. model: one's own network. out:
    the run directory; without one nothing is kept. init: a model file to start from. jobs: processes among which the
    participants' work is shared out; threads: how many share a step of one participant, in a network of the
    configuration's (one's own has its own number). Both leave the result the same. hooks: `on_round` and the like of
    `edgemeta.fed.run`. Raises ConfigError, DataError, StorageError, and DivergedError when the loss is not finite.
    """
    return start(prepare(config_of(config), data, model, threads), out, init, jobs, **hooks)


@dataclass(frozen=True)
class Prepared:
    """A run that can start. left_out: (training, test) samples that no participant has, to make them equal."""

    config: RunConfig
    network: Model
    participants: list[Participant]
    left_out: tuple[int, int]


def start(
    prepared: Prepared, out: str | Path | None = None, init: str | Path | None = None, jobs: int = 1, **hooks: Any
) -> RunResult:
    """Run what `prepare` made ready; see `simulate`."""
    theta = initial(prepared.network, prepared.config.seed, init)
    with processes(jobs) as each:
        return run(
            *(prepared.config, prepared.network, prepared.participants),
            out=None if out is None else Path(out),
            theta=theta,
            clock=time.monotonic,
            each=each,
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
    if isinstance(config, RunConfig):
        return config
    return config_from(config if isinstance(config, Mapping) else read_settings(config))


def prepare(
    config: RunConfig,
    data: Sequence[tuple[Arrays, Arrays]] | None = None,
    model: Model | None = None,
    threads: int = 1,
) -> Prepared:
    """Open the data and resolve the configuration with what it says; raises ConfigError and DataError."""
    if data is None:
        split = open_data(config.data.source, shape=config.model.input_shape, seed=config.seed)
        resolved = resolve(config, split.train.shape, split.train.classes, model)
        participants, left_out = divide(split, resolved.data, resolved.seed)
    else:
        if config.data.validation or config.data.label_noise or config.data.pixel_noise:
            raise ConfigError("data.validation and noise are for data that is cut here: prepare your own arrays so")
        participants = _own(data, model)
        first = participants[0].train_set
        config = replace(config, data=replace(config.data, source="arrays", participants=len(participants)))
        resolved, left_out = resolve(config, first.shape, first.classes, model), (0, 0)
    if model is None or model.classifies:
        check_several(participant.train_set for participant in participants)
    return Prepared(resolved, model or network_of(resolved, threads), participants, left_out)


def prepare_gateway(config: RunConfig) -> tuple[RunConfig, Model]:
    """Return the resolved configuration and the network of a run whose data stays on the devices.

    The gateway's own data is opened (labels only) where the configuration does not give model.input_shape and the names
    in model.classes. Raises ConfigError and DataError.
    """
    shape, classes = config.model.input_shape, config.model.classes
    if shape is None or not isinstance(classes, tuple):
        train = open_data(config.data.source, shape=shape, seed=config.seed).train
        shape, classes = train.shape, train.classes
    resolved = resolve(config, shape, classes)
    return resolved, network_of(resolved)


def initial(network: Model, seed: int, init: str | Path | None) -> Vector:
    """Return where a run starts: the parameters in a model file, or new ones; raises ConfigError on another layout."""
    if init is None:
        return network.init(seed)
    start = load_model(init)
    if start.network.layout != network.layout:
        raise ConfigError(
            f"{init} holds a model of layout {start.network.layout.fingerprint}, and this run's network has "
            f"{network.layout.fingerprint}: give a model of the same network, input shape and classes"
        )
    return start.theta


def _own(data: Sequence[tuple[Arrays, Arrays]], model: Model | None) -> list[Participant]:
    if not data:
        raise DataError("data is empty: give ((x_train, y_train), (x_test, y_test)) for one participant or more")
    count = model.outputs if model else 1 + max(int(np.max(y)) for parts in data for _, y in parts)
    classes = [str(i) for i in range(count)]

    def own(arrays: Arrays) -> Dataset:
        return from_arrays(*arrays, classes)

    return [Participant(own(train), own(test), k) for k, (train, test) in enumerate(data)]
