"""What is said of data when it is opened: what of it is not used, and what cannot be learnt from it."""

import logging

from edgemeta.data.dataset import Split, class_counts

logger = logging.getLogger("edgemeta")

NAMED = 8  # the others are counted


def say(where: str, split: Split) -> None:
    """Warn of what is left out of `split` and of classes without training samples; where: what the user called it."""
    if split.unused:
        logger.warning("%s: not used: %s", where, _some([str(unused) for unused in split.unused]))
    names = split.train.classes
    train, test = (class_counts(part.labels, len(names)).tolist() for part in (split.train, split.test))
    if nowhere := [name for name, a, b in zip(names, train, test, strict=True) if a == b == 0]:
        logger.warning("%s: no samples of %s", where, _some(nowhere))
    if untrained := [f"{name} ({b} for testing)" for name, a, b in zip(names, train, test, strict=True) if b and not a]:
        logger.warning("%s: no training samples of %s: nothing here can learn it", where, _some(untrained))


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
