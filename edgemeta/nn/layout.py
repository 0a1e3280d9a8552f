"""Names for the parts of one flat parameter vector.

A model's parameters are one vector, so that aggregation, clipping, noise and compression are vector algebra and
the wire is raw bytes. The layout says where each named tensor lies in it. The price of a flat vector is that a
wrong layout would reinterpret numbers silently, so every file and message carries the layout's fingerprint.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import InputError

Vector = NDArray[np.floating[Any]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Named tensors, in order, as slices of one vector.

    entries: (name, shape) of each tensor, in the order in which they lie in the vector.
    """

    entries: tuple[tuple[str, Shape], ...]

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies: name -> slice of the flat vector."""
        ends, end = {}, 0
        for name, shape in self.entries:
            start, end = end, end + math.prod(shape)
            ends[name] = slice(start, end)
        return ends

    @cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for _, shape in self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ when any name, shape or the order differs."""
        return hashlib.sha256(json.dumps(self.describe()).encode()).hexdigest()[:16]

    def describe(self) -> list[list[Any]]:
        """Return [[name, [sizes]], ...], ready for JSON."""
        return [[name, list(shape)] for name, shape in self.entries]

    def views(self, vector: Vector) -> dict[str, Vector]:
        """Return name -> view into `vector`; writing to a view writes to the vector.

        vector: (size,) of any float dtype. Raises InputError when its length is another layout's.
        """
        if vector.shape != (self.size,):
            raise InputError(
                f"a parameter vector of shape {vector.shape} does not fit this layout: expected ({self.size},)"
            )
        return {name: vector[self.slices[name]].reshape(shape) for name, shape in self.entries}

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Raise InputError unless these names and shapes of tensors are this layout's."""
        expected = dict(self.entries)
        if dict(shapes) != expected:
            wrong = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
            raise InputError(
                f"tensors do not fit the layout: {', '.join(wrong)} missing, unknown or of another shape; "
                f"expected {', '.join(f'{name} {list(shape)}' for name, shape in self.entries)}"
            )

    def flatten(self, tensors: Mapping[str, Vector], dtype: Any = np.float32) -> Vector:
        """Return one new vector holding `tensors`; raises InputError unless names and shapes are this layout's."""
        self.check({name: tensor.shape for name, tensor in tensors.items()})
        vector = np.empty(self.size, dtype)
        for name, view in self.views(vector).items():
            view[...] = tensors[name]
        return vector
