"""What a run will do: its configuration with everything resolved, and which round follows which recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgemeta.config import OWN, ModelConfig, PhaseConfig, RunConfig, ServerConfig
from edgemeta.data import parse_partition
from edgemeta.errors import ConfigError, InputError
from edgemeta.fed.aggregate import AGGREGATORS
from edgemeta.fed.messages import Work
from edgemeta.fed.optimizers import OPTIMIZERS
from edgemeta.fed.progress import Progress
from edgemeta.fed.scores import Record, new_record
from edgemeta.fed.selection import SELECTIONS
from edgemeta.fed.upload import UPLOADS
from edgemeta.meta import LEARNERS, checked
from edgemeta.meta.learners import numbers_classes
from edgemeta.nn import LOSSES, MODELS, PICTURES, RAW, Layout, Model, build
from edgemeta.nn.heads import EMBEDS, give_head, head_start
from edgemeta.records import nearest, read_record

CUSTOM = "custom"  # what a network without a name of its own is called


@dataclass(frozen=True)
class Plan:
    """A resolved configuration, and the schedule that follows from it. Rounds count from 1 over all phases."""

    config: RunConfig

    @property
    def is_open(self) -> bool:
        """Whether as many as join take part."""
        return not self.config.data.participants

    @property
    def held_out(self) -> range:
        """The participants that are scored and never train."""
        data = self.config.data
        return range(data.participants - data.held_out, data.participants)

    @property
    def training(self) -> int:
        """How many participants train, where that is known from the start."""
        return max(self.held_out.start, 1)

    def trains(self, participant: int) -> bool:
        """Say whether a participant, of those who have joined, trains."""
        return self.is_open or participant < self.held_out.start

    @property
    def last_round(self) -> int | None:
        """The number of the last round; None when the last phase is endless."""
        rounds = [phase.rounds for phase in self.config.phases]
        return sum(rounds) if rounds[-1] else None

    def phase_of(self, round_number: int) -> int:
        """Return the index of the phase to which a round belongs."""
        end = 0
        for i, phase in enumerate(self.config.phases):
            end += phase.rounds
            if round_number <= end:
                return i
        return len(self.config.phases) - 1

    def new_record(self, round_number: int) -> Record:
        """Return the record of a round of which nothing is known yet; round 0 is the start."""
        phase = self.config.phases[self.phase_of(round_number)]
        return new_record(round_number, *((phase.name, phase.algorithm) if round_number else ("start", "")))

    def task(self, progress: Progress, participant: int, layout: Layout) -> Work:
        """Return what the open stage asks of a participant."""
        return Work(
            kind=progress.stage,
            round=progress.round,
            phase=self.phase_of(progress.round),
            participant=participant,
            seed=self.config.seed,
            recipe=self.recipe(progress.round),
            evaluation=self.config.evaluation,
            layout=layout.fingerprint,
            counted=progress.counted.get(str(participant), 0),
        )

    def recipe(self, round_number: int) -> PhaseConfig:
        """Return the phase's settings with the round's own learning rate, which decays within a phase."""
        index = self.phase_of(round_number)
        phase = self.config.phases[index]
        before = sum(earlier.rounds for earlier in self.config.phases[:index])
        return replace(phase, lr=phase.lr * phase.lr_decay ** max(round_number - before - 1, 0))

    def is_evaluated(self, round_number: int) -> bool:
        """Say whether a round's model is scored: the start, every so many rounds, and the last."""
        return round_number % self.config.evaluation.every == 0 or round_number == self.last_round

    @cached_property
    def server(self) -> ServerConfig:
        """The server's settings, for brevity."""
        return self.config.server


def resolve(
    config: RunConfig,
    input_shape: tuple[int, ...],
    classes: tuple[str, ...],
    network: Model | None = None,
    most_classes: int | None = None,
) -> RunConfig:
    """Return the configuration with everything filled in that follows from the data or from other settings.

    classes: the names of the data's, unless the participants have their own. network: one's own, instead of a named
    model. most_classes: that a participant has of its own, where that is known. Raises ConfigError with every complaint
    about names and combinations.
    """
    train = config.data.participants - config.data.held_out
    selection = SELECTIONS.get(config.server.selection)
    least = config.server.min_available_clients or train or config.server.min_fit_clients or 2
    server = replace(
        config.server,
        groups=config.server.groups or (2 if selection and selection.sketched else None),
        min_available_clients=least,
        min_fit_clients=config.server.min_fit_clients or min(2, least if config.data.participants == 0 else train),
    )
    name, loss = (CUSTOM, network.loss) if network else (config.model.name, config.model.loss)
    own = config.model.own
    most = (config.model.most_classes or most_classes) if own else config.model.most_classes
    model = ModelConfig(name, input_shape, OWN if own else classes, loss, most)
    phases = tuple(
        replace(
            phase,
            name=phase.name or phase.algorithm,
            local_steps=None if phase.local_epochs else phase.local_steps or 10,
        )
        for phase in config.phases
    )
    resolved = replace(config, model=model, server=server, phases=phases)
    complaints = [*_against_data(config.model, input_shape, classes), *_unknown_names(resolved)]
    if own and network and not network.embeds:
        complaints.append(
            "model.classes is 'own', and the network ends in class scores: let it end in an embedding, "
            "say a dense layer, with Model(..., loss='prototypes')"
        )
    if not own and network and network.loss == "cross-entropy" and network.outputs != len(classes):
        said = f"the network has {network.outputs} outputs: the data has {len(classes)} classes"
        complaints.append(f"{said}; if there are more, name all of them in model.classes")
    if network and network.input_shape != input_shape:
        complaints.append(f"the network takes {network.input_shape}: the data has samples of shape {input_shape}")
    complaints += impossible(resolved)
    if len(classes) < 2 and network is None and not own:
        complaints.append(f"there is one class ({''.join(classes)}): a run needs two or more to tell apart")
    if not complaints:
        try:
            made = network or network_of(resolved)
            for phase in phases:
                if LEARNERS[phase.algorithm].apart and not own:
                    head_start(made)
            row = checked(config.evaluation, made)
            steps = config.evaluation.adapt_steps
            steps = row.steps if steps is None else steps
            how = config.evaluation.adaptation or ("prototypes" if own else None)
            resolved = replace(resolved, evaluation=replace(config.evaluation, adaptation=how, adapt_steps=steps))
        except InputError as error:
            complaints.append(f"evaluation: {error}" if isinstance(error, ConfigError) else str(error))
    if complaints:
        raise ConfigError("; ".join(complaints))
    return resolved


def network_of(config: RunConfig, threads: int = 1) -> Model:
    """Return the network that a resolved configuration names; pictures are normalised, other inputs are as they are.

    Where every participant has its own classes, it ends in its embedding.
    """
    shape, classes = config.model.input_shape, config.model.names
    assert shape is not None  # resolved
    normalization = PICTURES if len(shape) == 3 else RAW
    loss = EMBEDS if config.model.own else config.model.loss
    network = build(config.model.name, shape, len(classes), loss, normalization, threads)
    if config.model.most_classes:
        give_head(network, config.model.most_classes)
    return network


def _against_data(asked: ModelConfig, input_shape: tuple[int, ...], classes: tuple[str, ...]) -> list[str]:
    """Say where a configuration expects other data than there is."""
    complaints = []
    if asked.input_shape not in (None, input_shape):
        complaints.append(f"model.input_shape is {list(asked.input_shape or ())}: the data has {list(input_shape)}")
    if not asked.own and asked.classes not in (None, classes, len(classes)):
        complaints.append(f"model.classes is {asked.classes}: the data has {len(classes)}, {', '.join(classes)}")
    return complaints


def _unknown_names(config: RunConfig) -> list[str]:
    named = [
        ("model", config.model.name, [*MODELS, CUSTOM]),
        ("loss", config.model.loss, list(LOSSES)),
        ("aggregator", config.server.aggregator, list(AGGREGATORS)),
        ("optimizer", config.server.optimizer, list(OPTIMIZERS)),
        ("selection", config.server.selection, list(SELECTIONS)),
        *(("algorithm", phase.algorithm, list(LEARNERS)) for phase in config.phases),
        *(("upload", phase.upload, list(UPLOADS)) for phase in config.phases),
    ]
    complaints = [f"unknown {kind} '{name}': {_hint(name, known)}" for kind, name, known in named if name not in known]
    try:
        parse_partition(config.data.partition)
    except InputError as error:
        complaints.append(str(error))
    return complaints + _unknown_settings(config)


def _hint(name: str, known: Sequence[str]) -> str:
    """Return the nearest name, where there is one that is near, and all of them."""
    near, every = nearest(name, known), f"known are {', '.join(known)}"
    return near if near == every else f"{near}; {every}"


def _unknown_settings(config: RunConfig) -> list[str]:
    """Say what is wrong with the settings of variants, each of which declares its own beside it."""
    server, complaints = config.server, list[str]()
    rows: list[tuple[str, Any, Mapping[str, float]]] = [
        ("server.aggregator_settings.", AGGREGATORS.get(server.aggregator), server.aggregator_settings),
        ("server.optimizer_settings.", OPTIMIZERS.get(server.optimizer), server.optimizer_settings),
        *((f"phases.{i}.settings.", LEARNERS.get(p.algorithm), p.settings) for i, p in enumerate(config.phases)),
    ]
    for place, row, settings in rows:
        if row is not None:
            read_record(row.settings, settings, place, complaints)
    return complaints


def _wrong_learners(config: RunConfig) -> list[str]:
    """Say which learners do not go with the kind of classes that the participants have."""
    known = {phase.algorithm for phase in config.phases} & LEARNERS.keys()
    embeds, named = {name for name in known if LEARNERS[name].embeds}, sorted(filter(numbers_classes, known))
    if config.model.own and named and not config.model.most_classes:
        return [
            f"algorithm '{named[0]}' numbers every participant's classes, for which a head travels: say how many a "
            "participant has at most, as model.most_classes, or take 'protonet', which needs none"
        ]
    if not config.model.own and config.model.most_classes:
        return ["model.most_classes is for own classes: leave it out, or give model.classes = 'own'"]
    if config.model.own or not embeds:
        return []
    return [
        f"algorithm '{name}' learns an embedding, in which a participant's classes are told apart by their means, and "
        "common class names say nothing to it: give model.classes = 'own'"
        for name in sorted(embeds)
    ]


def _wrong_groups(server: ServerConfig, train: int) -> list[str]:
    """Say whether participants can be told apart in so many groups. train: how many they are, 0 or less: unknown."""
    row = SELECTIONS.get(server.selection)
    if row and not row.sketched and server.groups:
        fit = ", ".join(f"'{name}'" for name, other in SELECTIONS.items() if other.sketched)
        return [f"server.groups is for server.selection = {fit}: leave it out, or give that"]
    if row and row.sketched and 0 < train < (server.groups or 0):
        few = f"server.groups is {server.groups}, and {train} of the participants train"
        return [f"{few}: give {train} or less" if train > 1 else f"{few}: leave server.selection out"]
    return []


def impossible(config: RunConfig) -> list[str]:
    """Say which numbers of a configuration do not go together."""
    data, complaints, clip = config.data, [], config.server.clip
    train = data.participants - data.held_out
    if data.participants and train < 1:
        said = f"data.held_out is {data.held_out} of {data.participants} participants"
        return [f"{said}: leave one or more to train on"]
    if clip != "off" and (isinstance(clip, str) or clip < 1):
        complaints.append(f"server.clip is {clip!r}: expected a number from 1 (times the usual norm), or 'off'")
    for name in ("min_available_clients", "min_fit_clients"):
        value = getattr(config.server, name)
        if value > train and data.participants:
            complaints.append(f"server.{name} is {value}, but only {train} participants train: give {train} or less")
    complaints += _wrong_groups(config.server, train)
    complaints += _wrong_learners(config)
    complaints += [
        f"algorithm '{phase.algorithm}' keeps a mean over all participants, and data.participants is 0, for as many as "
        "join: say how many they are"
        for phase in config.phases
        if not data.participants and phase.algorithm in LEARNERS and LEARNERS[phase.algorithm].of_all
    ]
    complaints += [
        f"phases.{i}, algorithm '{phase.algorithm}': {said}"
        for i, phase in enumerate(config.phases)
        if phase.algorithm in LEARNERS and (said := LEARNERS[phase.algorithm].unsound(phase))
    ]
    few, classes = config.evaluation, config.model.classes
    if few.episodes and isinstance(classes, tuple) and 0 < len(classes) < few.ways:
        complaints.append(
            f"evaluation.ways is {few.ways}, and there are {len(classes)} classes: give as many, or fewer"
        )
    if (loss := config.model.loss) in LOSSES and not LOSSES[loss].classifies and not config.model.own:
        fit = ", ".join(name for name, row in LOSSES.items() if row.classifies)
        takes = (
            "an embedding (model.classes = 'own')" if LOSSES[loss].embeds else "targets, and a run's data has classes"
        )
        complaints.append(f"model.loss is '{loss}', which takes {takes}: give {fit}")
    return complaints
