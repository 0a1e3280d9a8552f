"""How an update's vectors travel: what stands for them in a message, and back.

A codec is one row of `UPLOADS`. A vector `theta` of so many numbers becomes the tensors `theta` + suffix that its
`tensors` describes, no more and no others, so what a message may weigh is known before it is sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError
from edgemeta.nn import Vector
from edgemeta.nn.files import Stored
from edgemeta.nn.layout import Shape

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Parts = Mapping[str, Array | Stored]
FLOAT32, FLOAT16 = np.dtype("<f4"), np.dtype("<f2")
HEAD_BYTES = 1 << 16  # for an update's header, of some hundred bytes: much room
HALF_MOST = 65504.0  # the largest finite number of 16 bits


@dataclass(frozen=True)
class Codec:
    """tensors: size -> suffix -> (dtype, shape). encode: (size,) float32 -> suffix -> array.

    decode: back again, of any part of the vector. what: for people.
    """

    tensors: Callable[[int], Mapping[str, tuple[np.dtype[Any], Shape]]]
    encode: Callable[[Vector], Tensors]
    decode: Callable[[Parts, slice], Vector]
    what: str


@dataclass(frozen=True)
class Encoded:
    """A vector in a message, decoded as it is asked for: `encoded[a:b]` is (b - a,) float32 of it.

    Out of a file it is good until the next part is asked for.
    """

    tensors: Parts
    codec: Codec
    size: int

    def __getitem__(self, part: slice) -> Vector:
        return self.codec.decode(self.tensors, part)


def as_half(vector: Vector) -> Tensors:
    """Round to 16 bits (IEEE 754 binary16); what is larger than these can hold becomes the largest that they can."""
    return {"": np.clip(vector, -HALF_MOST, HALF_MOST).astype(FLOAT16)}


UPLOADS: dict[str, Codec] = {
    "float32": Codec(
        tensors=lambda size: {"": (FLOAT32, (size,))},
        encode=lambda vector: {"": vector},
        decode=lambda tensors, part: tensors[""][part],
        what="every number as it is",
    ),
    "float16": Codec(
        tensors=lambda size: {"": (FLOAT16, (size,))},
        encode=as_half,
        decode=lambda tensors, part: tensors[""][part].astype(np.float32),
        what="half the bytes: 11 significant bits, and 65,504 at most",
    ),
}


def encode(vectors: Mapping[str, Vector], codec: str) -> dict[str, Array]:
    """Return the tensors that stand for the vectors in a message."""
    row = UPLOADS[codec]
    return {name + suffix: array for name, vector in vectors.items() for suffix, array in row.encode(vector).items()}


def decode(tensors: Parts, sizes: Mapping[str, int], codec: str) -> dict[str, Encoded]:
    """Return the vectors that a message's tensors stand for.

    sizes: name -> how many numbers. Raises InputError unless the tensors are exactly those that should be there.
    """
    row = UPLOADS[codec]
    expected = {name: row.tensors(size) for name, size in sizes.items()}
    described = {name + suffix: about for name, parts in expected.items() for suffix, about in parts.items()}
    if {name: (array.dtype, array.shape) for name, array in tensors.items()} != described:
        wanted = ", ".join(f"'{name}' of {shape[0]} {dtype.name}" for name, (dtype, shape) in described.items())
        raise InputError(f"expected the tensor{'s' * (len(described) > 1)} {wanted} ({codec}), and no others")
    return {
        name: Encoded({suffix: tensors[name + suffix] for suffix in parts}, row, sizes[name])
        for name, parts in expected.items()
    }


def most_bytes(sizes: Mapping[str, int], codec: str) -> int:
    """Return what an update of so many numbers weighs at most."""
    parts = (about for size in sizes.values() for about in UPLOADS[codec].tensors(size).values())
    return HEAD_BYTES + sum(dtype.itemsize * int(np.prod(shape, dtype=np.int64)) for dtype, shape in parts)
