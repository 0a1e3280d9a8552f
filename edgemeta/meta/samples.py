"""What a learner trains on: inputs with their labels."""

from typing import Any, NamedTuple

from numpy.typing import NDArray


class Samples(NamedTuple):
    """x: (N, ...) uint8 pixels or float32; y: (N,) int64 labels, or (N, outputs) float targets."""

    x: NDArray[Any]
    y: NDArray[Any]

    def take(self, indices: Any) -> "Samples":
        """Return the samples at `indices`."""
        return Samples(self.x[indices], self.y[indices])

    @property
    def size(self) -> int:
        """Number of samples (len() of a named tuple is its number of fields)."""
        return len(self.y)
