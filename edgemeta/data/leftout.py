"""Which samples nobody works with, and which classes cannot be learned or scored, said with the reason."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Dataset, Split, class_counts
from edgemeta.names import listed

Counts = NDArray[np.int64]


class LeftOut(NamedTuple):
    """train, test: how many samples no participant has; why: sentences, on classes of which one side is missing too."""

    train: int = 0
    test: int = 0
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a run's summary."""
        return {"train": self.train, "test": self.test, "why": list(self.why)}


def left_out(whole: Split, parts: Sequence[Split], *, validation: bool = False, natural: bool = False) -> LeftOut:
    """Return what of a data set is in none of the parts that it was divided into.

    validation: the parts' test samples are training samples of the whole, set aside, and its test samples unused.
    natural: the parts are the data's own participants, or some of them.
    """
    names, (train, test) = whole.train.classes, _counts([whole])
    used, scored = _counts(parts)
    if validation:
        used, scored = used + scored, np.zeros_like(test)
    rest, unscored = train - used, test - scored
    unlearned, nobodys = (train == 0) & (test > 0), (train > 0) & (used == 0)
    why = []
    if validation:
        why.append(f"no test sample of {test.sum()} is scored, but training samples set aside (data.validation)")
    elif unlearned.any():
        why.append(f"{_of(unscored, unlearned, 'test', names)}, which the training data lacks: they are not scored")
    if nobodys.any():
        why.append(
            f"no participant has {_names(names, nobodys)} ({rest[nobodys].sum()} training and "
            f"{unscored[nobodys].sum()} test samples): data.partition deals out fewer classes than there are"
        )
    why += [] if validation else _unscored(used, test, names)
    others = ~(unlearned | nobodys)
    over, over_test = int(rest[others].sum()), 0 if validation else int(unscored[others].sum())
    if natural and whole.train.owners and (over or over_test):
        among = f"{len(parts)} of the {len(whole.train.owners.names)} participants that the data names"
        why.append(f"{among} take part: {over} training and {over_test} test samples are of others")
    elif over or over_test:
        text = f"left out, to make participants equal: {over} training and {over_test} test samples"
        if max(over, over_test) >= len(parts):  # more than what does not divide by their number
            few = f"; each has {len(parts[0].train)} and {len(parts[0].test)}, as the classes with the fewest allow"
            text += f" (of {_names(names, others & ((rest > 0) | (unscored > 0)))}){few}"
        why.append(text)
    return LeftOut(int(rest.sum()), int(unscored.sum()), tuple(why))


def one_sided(splits: Sequence[Split]) -> list[str]:
    """Return which classes only the training samples have, or only the test samples, where all of them are used."""
    names, (train, test) = splits[0].train.classes, _counts(splits)
    unlearned = (train == 0) & (test > 0)
    said = f"{_of(test, unlearned, 'test', names)}, which the training data lacks: they are scored, and not learned"
    return [said] * bool(unlearned.any()) + _unscored(train, test, names)


def _unscored(train: Counts, test: Counts, names: Sequence[str]) -> list[str]:
    only = (train > 0) & (test == 0)
    said = f"{_of(train, only, 'training', names)}, which the test data lacks: they are learned, and not scored"
    return [said] * bool(only.any())


def _counts(splits: Sequence[Split]) -> tuple[Counts, Counts]:
    """Return how many training and test samples there are of each class."""

    def counted(sides: Sequence[Dataset]) -> Counts:
        return class_counts(np.concatenate([side.labels for side in sides]), len(sides[0].classes))

    return counted([split.train for split in splits]), counted([split.test for split in splits])


def _of(counts: Counts, which: NDArray[np.bool_], side: str, names: Sequence[str]) -> str:
    number = int(counts[which].sum())
    return f"{number} {side} sample{' is' if number == 1 else 's are'} of {_names(names, which)}"


def _names(names: Sequence[str], which: NDArray[np.bool_]) -> str:
    return listed([names[i] for i in np.flatnonzero(which).tolist()])
