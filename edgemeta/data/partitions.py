"""Cutting one data set into participants.

Every scheme first decides how many samples of each class each participant gets, as a matrix of real numbers that
respects equal sizes (rows) and the samples there are (columns); then the matrix is rounded without breaking either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Indices, checked_labels, class_counts
from edgemeta.errors import DataError

Matrix = NDArray[np.float64]
Counts = NDArray[np.int64]
Choices = list[tuple[slice, int]]  # among which classes, and how many of them

KNOWN = "iid, dirichlet:ALPHA (say dirichlet:0.5), shards:CLASSES_PER_PARTICIPANT (say shards:2), natural"
BALANCING_STEPS = 300  # rows and columns are met to about a sample by then; what is missing is made up for exactly
SNAP = 1e-7  # closer to a whole number than this, a share is that number


@dataclass(frozen=True)
class Partition:
    """train[k], test[k]: participant k's positions, in random order. left_out: (training, test) samples unused."""

    train: list[Indices]
    test: list[Indices]
    left_out: tuple[int, int]


def parse_partition(scheme: str) -> tuple[str, float | int | None]:
    """Return ("iid", None), ("natural", None), ("dirichlet", alpha) or ("shards", classes a participant).

    Raises DataError.
    """
    name, colon, argument = scheme.partition(":")
    try:
        if name in ("iid", "natural") and not colon:
            return name, None
        if name == "dirichlet" and 0 < float(argument) < math.inf:
            return name, float(argument)
        if name == "shards" and int(argument) > 0:
            return name, int(argument)
    except ValueError:
        pass
    raise DataError(f"no partition '{scheme}': expected one of {KNOWN}")


def partition(
    train_labels: Any,
    test_labels: Any,
    classes: int,
    participants: int,
    scheme: str,
    rng: np.random.Generator,
    held_out: int = 0,
    new_classes: int = 0,
) -> Partition:
    """Cut a data set into participants of equal size, no sample twice; the rest is left out and counted.

    train_labels, test_labels: (N,) and (M,) whole numbers below `classes`. A participant's test part has its training
    part's class mix, up to rounding (a class without test samples counts for nothing there). Classes that are too
    small for the scheme make everyone's part smaller. Raises DataError where nobody, or not everybody, would get
    a training and a test sample, and for an unknown scheme, or one that labels say nothing of (`natural`).

    new_classes: so many, the last ones, are kept from all but the last `held_out` participants, of whom each has
    min(new_classes, N // 2) of them under shards:N; another scheme does not go with it.
    """
    name, argument = parse_partition(scheme)
    if name == "natural":
        raise DataError("labels alone name no participants: 'natural' is for data sets")
    train_y, test_y = (checked_labels(np.asarray(y), classes) for y in (train_labels, test_labels))
    if not 0 < participants <= min(len(train_y), len(test_y)):
        raise DataError(
            f"{participants} participants cannot share {len(train_y)} training and {len(test_y)} test samples: "
            "expected from one participant to as many as there are samples of each"
        )
    there, tests = class_counts(train_y, classes), class_counts(test_y, classes)
    if name == "shards":
        assert isinstance(argument, int)
        train = _shards(there, _choices(classes, participants, argument, held_out, new_classes), rng)
    elif new_classes:
        raise DataError(f"data.new_classes is {new_classes}, and goes with data.partition = 'shards:N', not '{scheme}'")
    else:
        mixes = np.ones((participants, classes)) if argument is None else _mixes(participants, classes, argument, rng)
        train = _equal_sizes(mixes, there)
    test = _same_mix(train, tests)
    parts = _deal(train_y, train, rng), _deal(test_y, test, rng)
    return Partition(*parts, (len(train_y) - int(train.sum()), len(test_y) - int(test.sum())))


def _mixes(participants: int, classes: int, alpha: float, rng: np.random.Generator) -> Matrix:
    """Return Dirichlet(alpha) rows, drawn as logarithms: for a small alpha the gamma variates themselves are all 0."""
    shape = (participants, classes)
    alpha = max(alpha, 1e-6)
    logs = np.log(rng.standard_gamma(alpha + 1, shape)) + np.log1p(-rng.random(shape)) / alpha
    rows = np.maximum(np.exp(logs - logs.max(axis=1, keepdims=True)), 1e-12)
    return rows / rows.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _equal_sizes(mixes: Matrix, there: Counts) -> Counts:
    """Return samples by participant and class, near `mixes` (all positive) with equal rows, using all but a rest."""
    participants = len(mixes)
    size = int(there.sum()) // participants
    room = there * (size * participants / there.sum())
    shares = _balanced(mixes, room)
    # The columns are exact now; where the rows are not yet, cut them and hand what is over to who has too little.
    shares *= np.minimum(1, size / shares.sum(axis=1))[:, np.newaxis]
    lacking, over = size - shares.sum(axis=1), room - shares.sum(axis=0)
    if over.sum() > SNAP:
        shares += np.outer(lacking, np.maximum(over, 0) / np.maximum(over, 0).sum())
    return _rounded(shares, there, size)


def _choices(classes: int, participants: int, each: int, held_out: int, new: int) -> list[Choices]:
    """Return for each participant among which classes it chooses, and how many: without new classes, among all."""
    if not new:
        return [[(slice(None), each)]] * participants
    old, share = slice(0, classes - new), min(new, each // 2)
    if not held_out or not share or classes - new < each:
        raise DataError(
            f"data.new_classes is {new} of {classes} classes, with {held_out} held-out participants of {each} classes: "
            f"expected one held-out participant or more, two classes each or more, and {each} classes that are not new"
        )
    late: Choices = [(old, each - share), (slice(classes - new, classes), share)]
    return [[(old, each)]] * (participants - held_out) + [late] * held_out


def _shards(there: Counts, choices: Sequence[Choices], rng: np.random.Generator) -> Counts:
    """Return samples by participant and class, each with as many classes as it chooses, and classes spread evenly."""
    participants, each = len(choices), sum(count for _, count in choices[0])
    if each > np.count_nonzero(there):
        raise DataError(f"shards:{each} of {np.count_nonzero(there)} classes with samples: use that many or fewer")
    has = np.zeros((participants, len(there)), np.int64)
    used = np.zeros(len(there), np.int64)
    for row, among in zip(has, choices, strict=True):
        for part, count in among:
            # Those that the fewest have, ties at random; a class is given at most to as many as it has samples.
            full = (used >= there)[part]
            order = np.lexsort((rng.random(len(full)), used[part], full))[:count]
            if full[order].any():
                raise DataError(f"shards:{each}: the classes are too small for {participants} participants; use fewer")
            row[part][order] = 1
            used[part][order] += 1
    # Of classes that few may choose, each of these takes what is usual of the others: not all that there is.
    usual = choices[0][0][0]
    most = np.ceil(used * (there[usual].sum() / used[usual].sum())).astype(np.int64)
    most[usual] = there[usual]
    there = np.minimum(there, most)
    # One sample of each class is certain; the others are balanced, and the poorest participant sets everyone's size.
    shares = _balanced(has.astype(np.float64), (there - used).astype(np.float64))
    rest = min(math.floor(shares.sum(axis=1).min() + SNAP), int(there.sum()) // participants - each)
    shares *= rest / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    return has + _rounded(shares, there - used, rest)


def _balanced(shares: Matrix, columns: Matrix) -> Matrix:
    """Scale rows and columns in turn (Sinkhorn) until rows are equal and columns as given; columns are met last.

    Where no equal rows exist, the smallest row becomes as large as it can be.
    """
    row = columns.sum() / len(shares)
    for _ in range(BALANCING_STEPS):
        sums = shares.sum(axis=1, keepdims=True)
        shares = shares * (row / np.maximum(sums, 1e-300))
        sums = shares.sum(axis=0)
        shares = shares * (columns / np.maximum(sums, 1e-300))
        if np.abs(shares.sum(axis=1) - row).max() < SNAP:
            break
    return shares


def _rounded(shares: Matrix, room: Counts, size: int) -> Counts:
    """Round each number up or down so that rows add up to `size` and no column to more than `room`."""
    whole = np.rint(shares)
    shares = np.where(np.abs(shares - whole) < SNAP, whole, shares)
    low = np.floor(shares).astype(np.int64)
    ups = _ups(shares - low, size - low.sum(axis=1), room - low.sum(axis=0))
    assert ups is not None  # the shares keep both bounds, and then whole numbers do
    return low + ups


def _same_mix(train: Counts, there: Counts) -> Counts:
    """Return test samples by participant and class: the training mix, at the largest size that is the same for all."""
    weights = train * (there > 0)
    sizes = weights.sum(axis=1, keepdims=True)
    if not sizes.all():
        raise DataError("some participants' classes have no test samples: add some, or use another partition")

    def attempt(size: int) -> Counts | None:
        low, rest = weights * size // sizes, weights * size % sizes
        ups = _ups(rest / sizes, size - low.sum(axis=1), there - low.sum(axis=0))
        return None if ups is None else low + ups

    wanted = (weights / sizes).sum(axis=0)  # for one sample each
    most = int(there.sum()) // len(train)
    low = min(most, math.floor((there[wanted > 0] / wanted[wanted > 0]).min() + SNAP))
    best, high = attempt(low), most
    # So many fit for certain; where a class has few test samples, rounding its shares down lets more of the others in.
    while low < high:
        middle = high if high == most else (low + high + 1) // 2
        if (found := attempt(middle)) is None:
            high = middle - 1
        else:
            best, low = found, middle
    if best is None or low == 0:
        raise DataError("the test set has too few samples of some class to give everyone one: use fewer participants")
    return best


def _ups(parts: Matrix, need: Counts, room: Counts) -> Counts | None:
    """Return zeros and ones: which fractional parts to round up, `need` in each row and at most `room` in a column.

    Rows choose greedily; where one finds its columns full, others move along an augmenting path, so that a choice is
    found if there is one. There is one where the parts themselves keep both bounds (such flows have whole solutions).
    """
    if room.min() < 0:
        return None
    ups = np.zeros(parts.shape, np.int64)
    room, ahead = room.copy(), parts.sum(axis=0)  # ahead: what the columns' remaining rows would like
    for k in range(len(parts)):
        ahead -= parts[k]
        spare = np.where((parts[k] > 0) & (room > 0), parts[k] + room - ahead, -np.inf)
        chosen = np.argsort(-spare, kind="stable")[: need[k]]
        chosen = chosen[spare[chosen] > -np.inf]
        ups[k, chosen] = 1
        room[chosen] -= 1
        for _ in range(int(need[k]) - len(chosen)):
            if not _augment(ups, parts > 0, room, k):
                return None
    return ups


def _augment(ups: Counts, allowed: NDArray[np.bool_], room: Counts, row: int) -> bool:
    """Give `row` one more, moving other rows' ones to other columns where that makes room; return whether it could."""
    came: dict[int, tuple[int, int]] = {int(c): (row, -1) for c in np.flatnonzero(allowed[row] & (ups[row] == 0))}
    queue = list(came)
    for column in queue:
        if room[column] > 0:
            room[column] -= 1
            while column >= 0:
                mover, previous = came[column]
                ups[mover, column] = 1
                if previous >= 0:
                    ups[mover, previous] = 0
                column = previous
            return True
        for other in np.flatnonzero(ups[:, column]):
            for c in np.flatnonzero(allowed[other] & (ups[other] == 0)):
                if int(c) not in came:
                    came[int(c)] = (int(other), column)
                    queue.append(int(c))
    return False


def _deal(labels: Indices, counts: Counts, rng: np.random.Generator) -> list[Indices]:
    """Return each participant's positions, drawn class by class, in random order. Rows of counts add up alike."""
    positions, owners = [], []
    for c in range(counts.shape[1]):
        shuffled = rng.permutation(np.flatnonzero(labels == c))
        positions.append(shuffled[: counts[:, c].sum()])
        owners.append(np.repeat(np.arange(len(counts)), counts[:, c].astype(np.intp)))
    owner = np.concatenate(owners)
    order = np.lexsort((rng.random(len(owner)), owner))
    return list(np.concatenate(positions)[order].astype(np.int64).reshape(len(counts), -1))
