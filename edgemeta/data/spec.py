"""From a SPEC, as users write it, to data."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from edgemeta.data.cifar import CIFAR_10, CIFAR_100, has_cifar_10, has_cifar_100, open_cifar
from edgemeta.data.dataset import Split
from edgemeta.data.folder import open_folder
from edgemeta.data.idx import has_idx, open_idx
from edgemeta.data.notes import say
from edgemeta.data.npz import open_npz
from edgemeta.data.omniglot import SHAPE, has_alphabets, open_omniglot
from edgemeta.data.places import look
from edgemeta.data.synthetic import LIMITS, synthetic
from edgemeta.errors import DataError

PICTURE_SHAPE = (32, 32, 3)  # of an image folder's pictures, where the model does not say
MAX_SIDE = 4096
EXPECTED = "expected 'synthetic', a folder of pictures, CIFAR binary files or IDX files, or an .npz file"
PICKLED = {"data_batch_1", "test_batch", "cifar-10-batches-py", "cifar-100-python"}


def open_data(spec: str, *, shape: tuple[int, ...] | None = None, seed: int = 0) -> Split:
    """Return the training and test data that a SPEC names, with their labels read and their samples not yet.

    spec: "synthetic", "synthetic:samples=6000,classes=10,size=32,seed=S", or a path. shape: what a sample must be:
    pictures in folders are resized to it (default 32 x 32 x 3, and of Omniglot 28 x 28 x 1), other data is refused when
    it differs.
    seed: the run's, for the synthetic set. What is there and is not used, and classes without training samples, are
    said in a warning. Raises DataError that says what was wrong, expected and to be done.
    """
    name, colon, rest = spec.partition(":")
    if name == "synthetic":
        split = _synthetic(rest if colon else "", seed)
    else:
        split = _from_path(os.path.expanduser(spec), shape)
    if shape is not None and split.train.shape != tuple(shape):
        raise DataError(
            f"{spec} ({split.kind}) has samples of shape {split.train.shape}, and {tuple(shape)} is wanted: "
            "use a model made for that shape, or a folder of pictures, which are resized"
        )
    say(spec, split)
    return split


def _from_path(name: str, shape: tuple[int, ...] | None) -> Split:
    path = Path(name)
    try:
        is_folder = stat.S_ISDIR(os.stat(name).st_mode)  # Path("") would be here
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"no data at '{name}' ({reason}): {EXPECTED}") from None
    if not is_folder:
        if path.suffix.lower() == ".npz":
            return open_npz(path)
        raise DataError(f"'{path}' is a file: {EXPECTED}; unpack an archive, and give the folder")
    place = look(path)
    files = list(place.files)
    kinds: dict[str, Callable[[], Split]] = {}
    if has_cifar_10(files):
        kinds["CIFAR-10 binary"] = lambda: open_cifar(path, CIFAR_10)
    if has_cifar_100(files):
        kinds["CIFAR-100 binary"] = lambda: open_cifar(path, CIFAR_100)
    if has_idx(path, files):
        kinds["IDX"] = lambda: open_idx(path)
    if len(kinds) > 1:
        raise DataError(f"'{path}' has {' and '.join(kinds)} files: leave those of one kind there")
    if kinds:
        return next(iter(kinds.values()))()
    if PICKLED & {*files, *place.folders}:
        raise DataError(
            f"'{path}' has the Python version of CIFAR, a pickle, which could run any code: "
            "take the binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz)"
        )
    drawings = has_alphabets(place)
    shape = shape or (SHAPE if drawings else PICTURE_SHAPE)
    if len(shape) != 3 or shape[2] not in (1, 3) or not all(0 < side <= MAX_SIDE for side in shape):
        raise DataError(f"pictures cannot be given the shape {shape}: expected (height, width, 1 or 3)")
    return (open_omniglot if drawings else open_folder)(path, (shape[0], shape[1], shape[2]))


def _synthetic(text: str, seed: int) -> Split:
    settings = {"seed": seed}
    for item in text.split(",") if text else []:
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in LIMITS or not (value.isascii() and value.isdecimal() and len(value) < 20):
            known = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in LIMITS.items())
            raise DataError(f"synthetic: '{item}': expected KEY=NUMBER with {known}")
        settings[key] = int(value)
    return synthetic(**settings)
