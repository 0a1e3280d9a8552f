"""Tensors in files and messages: the safetensors format, and the model files written in it.

A file is an 8-byte little-endian header length, a JSON header, and the tensors' raw little-endian bytes without gaps.
Nothing in it is trusted: lengths are held against limits and the file's size before anything is allocated.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DivergedError, InputError, ModelFileError, StorageError
from edgemeta.names import canonical
from edgemeta.nn.layout import Shape, Vector
from edgemeta.nn.model import Model, Normalization, layers_from
from edgemeta.nn.models import MODELS, build, layers_of
from edgemeta.reading import Missing, Reader, reading
from edgemeta.storage import write_atomic

FORMAT = "edgemeta/1"
MAX_HEADER_BYTES = 1 << 20  # a header names tensors and carries settings; ours are a few kB
DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
Array = NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What a file says of itself. tensors: name -> (dtype, shape, offset in bytes from the file's start)."""

    tensors: Mapping[str, tuple[np.dtype[Any], Shape, int]]
    metadata: Mapping[str, str]


def encode_header(tensors: Mapping[str, tuple[np.dtype[Any], Shape]], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes that come before the tensors' data, which must follow in the order of `tensors`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8, so that others can map it
    return len(text).to_bytes(8, "little") + text


def encode_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return a whole file as parts to be written one after the other; the data is not copied."""
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    head = encode_header({name: (array.dtype, array.shape) for name, array in arrays.items()}, metadata)
    return [head, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]


@dataclass(frozen=True)
class Stored:
    """A tensor in an open file, which is read when it is asked for: no file is mapped, as errors of those are signals.

    `stored[a:b]` is part of a vector, good until the next part is asked for: that is read into the same memory, as new
    memory takes longer than to read. Raises StorageError, and ModelFileError when the file has become shorter.
    """

    file: Reader
    dtype: np.dtype[Any]
    shape: Shape
    offset: int
    _block: list[Array] = field(default_factory=list)

    def __getitem__(self, part: slice) -> Array:
        start, stop, _ = part.indices(self.shape[0])
        size = max(stop - start, 0)
        if not self._block or self._block[0].size < size:
            self._block[:] = [np.empty(size, self.dtype)]
        return self._read(self._block[0][:size], start)

    def whole(self, out: Array | None = None) -> Array:
        """Return all of it; out: memory of the same type and shape, without gaps, to be filled."""
        return self._read(np.empty(self.shape, self.dtype) if out is None else out, 0)

    def _read(self, out: Array, start: int) -> Array:
        if out.size:
            block = out.reshape(-1).view(np.uint8).data
            if self.file.fill(block, self.offset + self.dtype.itemsize * start) < len(block):
                raise ModelFileError(f"cannot use {self.file.path}: it was cut short while it was read")
        return out


@contextmanager
def opened(path: Path) -> Iterator[tuple[dict[str, Stored], Mapping[str, str]]]:
    """Give name -> tensor of a file and its metadata, for as long as it is open.

    It stays the same file when another one takes its name. Raises ModelFileError that names a file which is none or is
    not there, StorageError when it cannot be read.
    """
    try:
        file = Reader(path)
    except Missing as error:
        raise ModelFileError(f"{error}; expected a model file") from error
    with file:
        try:
            header = read_header(file)
        except ModelFileError as error:
            raise ModelFileError(f"cannot use {path}: {error}") from error
        yield {name: Stored(file, *entry) for name, entry in header.tensors.items()}, header.metadata


def read_header(file: Reader) -> Header:
    """Return the header of an open file, checked against its size; raises ModelFileError for anything unsound."""
    size = file.status().st_size
    length = int.from_bytes(file.read_at(8, 0), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ModelFileError(
            f"the header is said to take {length} bytes of a file of {size}: cut short or no safetensors"
        )
    try:
        header = json.loads(file.read_at(length, 8))
        metadata = header.pop("__metadata__", {})
        tensors = {name: _tensor(entry, 8 + length) for name, entry in header.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata must be strings")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"the header is damaged ({error}): expected safetensors") from None
    end = 8 + length
    for dtype, shape, offset in sorted(tensors.values(), key=lambda entry: (entry[2], math.prod(entry[1]))):
        if offset != end:
            raise ModelFileError("tensors overlap or leave gaps: expected each to start where the one before ends")
        end += dtype.itemsize * math.prod(shape)
    if end != size:
        raise ModelFileError(f"the tensors take {end} bytes and the file has {size}: it was cut short or added to")
    return Header(tensors, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    """Return name -> array, in memory of its own, and the metadata; raises as `opened` does."""
    with opened(path) as (tensors, metadata), reading(path):
        try:
            return {name: tensor.whole() for name, tensor in tensors.items()}, metadata
        except ValueError as error:  # NumPy's, for sizes that it cannot even name
            raise ModelFileError(f"cannot use {path}: {error}") from None


def save_model(
    path: Path,
    model: Model,
    theta: Vector,
    classes: Sequence[str],
    round_number: int,
    scale: float | None = None,
    reject: float | None = None,
) -> None:
    """Write a model file, atomically, in float32. Equal arguments give equal bytes: no timestamp enters it.

    scale: of the squared distances that its last layer says, where prototypes made that; reject: the squared distance
    from which on a sample is like none of the classes.

    Raises InputError when a classifier's class names are not as many as its outputs, DivergedError for parameters that
    are not finite, which nothing could load, and StorageError when it cannot write.
    """
    metadata = model_metadata(model, classes, round_number)
    metadata |= {name: repr(value) for name, value in (("scale", scale), ("reject", reject)) if value is not None}
    with np.errstate(over="ignore"):
        theta = theta.astype(np.float32, copy=False)
    if not np.isfinite(theta).all():
        raise DivergedError(f"{path} is not written: the parameters are not all finite; lower lr")
    write_atomic(path, encode_tensors(model.layout.views(theta), metadata))


def model_metadata(model: Model, classes: Sequence[str], round_number: int) -> dict[str, str]:
    """Return what a model file says besides its tensors: the layers too, unless the name and the classes say them."""
    _check_classes(model, classes)
    named = model.name in MODELS and tuple(layers_of(model.name, len(classes))) == model.layers
    return {
        "format": FORMAT,
        "model": model.name,
        "input_shape": ",".join(map(str, model.input_shape)),
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "normalization": json.dumps({"mean": model.normalization.mean, "std": model.normalization.std}),
        "layout": model.layout.fingerprint,
        "round": str(round_number),
        "loss": model.loss,
    } | ({} if named else {"layers": json.dumps(model.describe())})


class Parameters(NamedTuple):
    """What a model file holds. scale, reject: as `save_model` takes them."""

    model: Model
    theta: Vector
    classes: tuple[str, ...]
    round: int
    scale: float | None
    reject: float | None


def load_parameters(path: Path) -> Parameters:
    """Return what a model file holds.

    Raises ModelFileError that says what is wrong, StorageError when the file cannot be read.
    """
    with opened(path) as (tensors, metadata):
        if metadata.get("format") != FORMAT:
            raise ModelFileError(f"{path} is of format {metadata.get('format')!r}: expected '{FORMAT}'")
        try:
            classes = _class_names(metadata["classes"])
            model = model_from(metadata, len(classes))
            _check_classes(model, classes)
            if metadata["layout"] != model.layout.fingerprint:
                raise InputError(
                    f"its layout is {metadata['layout']}, but its description gives {model.layout.fingerprint}"
                )
            if any(tensor.dtype != np.float32 for tensor in tensors.values()):
                raise InputError("its tensors are not all float32, as a model's are")
            round_number = int(metadata["round"])
            if round_number < 0:
                raise ValueError(f"its round is {round_number}")
            model.layout.check({name: tensor.shape for name, tensor in tensors.items()})
            with reading(path):
                theta = np.empty(model.layout.size, np.float32)
                for name, view in model.layout.views(theta).items():
                    tensors[name].whole(view)
            if not np.isfinite(theta).all():
                raise ValueError("its parameters are not all finite")
            return Parameters(
                model, theta, classes, round_number, _number(metadata, "scale"), _number(metadata, "reject")
            )
        except KeyError as error:
            raise ModelFileError(f"cannot use {path}: its metadata lack {error}; was it written by edgemeta?") from None
        except (StorageError, ModelFileError):
            raise
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, InputError) as error:
            raise ModelFileError(f"cannot use {path}: {error}; was it written by a newer version?") from None


def _number(metadata: Mapping[str, str], name: str) -> float | None:
    if name not in metadata:
        return None
    value = float(metadata[name])
    if not 0 <= value < math.inf or (name == "scale" and not value):
        raise ValueError(f"its {name} is {value}")
    return value


def model_from(metadata: Mapping[str, str], outputs: int) -> Model:
    """Return the network that a model file's metadata describes; raises what the caller turns into ModelFileError."""
    shape = tuple(int(size) for size in metadata["input_shape"].split(","))
    normalization = Normalization(**{key: float(value) for key, value in json.loads(metadata["normalization"]).items()})
    loss = metadata.get("loss", "cross-entropy")
    if "layers" in metadata:
        layers = layers_from(json.loads(metadata["layers"]))
        return Model(layers, shape, loss, normalization, metadata["model"])
    return build(metadata["model"], shape, outputs, loss, normalization)


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not a list of names")
    return tuple(map(canonical, names))


def _check_classes(model: Model, classes: Sequence[str]) -> None:
    if model.embeds and classes:
        raise InputError(f"{len(classes)} class names for an embedding: expected none, as it has no classes of its own")
    if model.classifies and len(classes) != model.outputs:
        raise InputError(f"{len(classes)} class names for {model.outputs} outputs: expected one name an output")


def _tensor(entry: Mapping[str, Any], start: int) -> tuple[np.dtype[Any], Shape, int]:
    dtype, shape, (begin, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(n) is int and 0 <= n < 2**48 for n in (*shape, begin, end)) or len(shape) > 8:
        raise ValueError("sizes and offsets must be whole numbers from 0")
    if end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError("a tensor's offsets do not span its shape")
    return dtype, shape, start + begin
