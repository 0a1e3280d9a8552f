"""Who has which data in an experiment: one data set cut into participants, with noise where it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgemeta.config import DataConfig, EvaluationConfig
from edgemeta.data import Dataset, Split, add_noise, own_classes, partition
from edgemeta.data.leftout import LeftOut, left_out
from edgemeta.data.natural import natural
from edgemeta.errors import ConfigError, DataError
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import Samples
from edgemeta.meta.episodes import usable_classes


@dataclass(frozen=True)
class Participant:
    """One participant's data, read when first used. label_noise and pixel_noise spoil the training part only."""

    train_set: Dataset
    test_set: Dataset
    number: int = 0
    seed: int = 0
    label_noise: float = 0.0
    pixel_noise: float = 0.0

    @cached_property
    def train(self) -> Samples:
        """The training samples."""
        x, y = self.train_set.load()
        if self.label_noise or self.pixel_noise:
            rng = generator(self.seed, Stream.NOISE, self.number)
            x, y = add_noise(x, y, len(self.train_set.classes), self.label_noise, self.pixel_noise, rng)
        return Samples(x, y)

    @cached_property
    def test(self) -> Samples:
        """The samples that are scored, and used for nothing else."""
        return Samples(*self.test_set.load())


def divide(split: Split, data: DataConfig, seed: int) -> tuple[list[Participant], tuple[int, int]]:
    """Return the participants of a data set, and how many (training, test) samples were left out to make them equal.

    With `validation`, that share of each participant's training data is scored instead of its test data, so that
    settings can be tuned without looking at the test data. Raises DataError where the data cannot be divided so,
    ConfigError where it is not said into how many parts.
    """
    if not data.participants:
        raise ConfigError(
            "data.participants is 0, which lets as many devices take part as join a gateway: to cut data into parts, "
            "say into how many"
        )
    rng, labels = generator(seed, Stream.PARTITION), (split.train.labels, split.test.labels)
    if data.partition == "natural":
        parts = natural(split.train, split.test, data.participants, rng)
    else:
        classes, new = len(split.train.classes), (data.held_out, data.new_classes)
        parts = partition(*labels, classes, data.participants, data.partition, rng, *new)
    may = data.participants if data.held_out_noise else data.participants - data.held_out
    drawn = generator(seed, Stream.NOISE).permutation(data.participants)
    spoilt = set(drawn[drawn < may][: round(data.noisy_participants * may)].tolist())
    participants = []
    for k in range(data.participants):
        train, test = split.train.take(parts.train[k]), split.test.take(parts.test[k])
        if data.validation:
            train, test = _set_aside(train, data.validation, generator(seed, Stream.VALIDATION, k))
        if not len(train) or not len(test):
            counts = f"{len(train)} training and {len(test)} test samples"
            if data.partition == "natural":
                raise DataError(f"{_owner(train, test)} has {counts} in the data: expected one or more of both")
            raise DataError(f"participant {k} would have {counts}: use fewer participants")
        noise = (data.label_noise, data.pixel_noise) if k in spoilt else (0.0, 0.0)
        participants.append(Participant(train.for_participant(k), test.for_participant(k), k, seed, *noise))
    return participants, parts.left_out


def with_own_classes(participant: Participant) -> Participant:
    """Return a part of a data set as if its classes were the participant's own: only those, and in an order of its own.

    So what one participant calls its first class says nothing of another's.
    """
    rng = generator(participant.seed, Stream.CLASSES, participant.number)
    own = own_classes(Split(participant.train_set, participant.test_set), rng)
    return replace(participant, train_set=own.train, test_set=own.test)


def check_episodes(participants: Sequence[Participant], settings: EvaluationConfig) -> None:
    """Raise DataError where episodes are asked for and nobody has classes enough for them."""
    for shots in settings.shots if settings.episodes else ():
        sides = [(participant.train_set.labels, participant.test_set.labels) for participant in participants]
        if max(len(usable_classes(*labels, shots)) for labels in sides) < settings.ways:
            raise DataError(
                f"no participant has {settings.ways} classes with {shots} training samples and a test sample each: "
                "lower evaluation.ways or evaluation.shots, or take a partition with more classes for each"
            )


def left_over(split: Split, participants: Sequence[Participant], data: DataConfig) -> LeftOut:
    """Return which samples of a data set none of the participants has into which it was divided, and why."""
    parts = [Split(participant.train_set, participant.test_set) for participant in participants]
    return left_out(split, parts, validation=bool(data.validation), natural=data.partition == "natural")


def _owner(*sides: Dataset) -> str:
    """Return the name of the participant whose samples these are."""
    names = [side.owners.names[side.owners.numbers[0]] for side in sides if side.owners and len(side)]
    return f"'{names[0]}'" if names else "a participant that the data names"


def _set_aside(train: Dataset, share: float, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    order = rng.permutation(len(train)).astype(np.int64)
    aside = max(1, round(share * len(train)))
    return train.take(np.sort(order[aside:])), train.take(np.sort(order[:aside]))
