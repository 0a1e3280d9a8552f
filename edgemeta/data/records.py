"""Records of one length in a file, read one by one: a part of a data set costs the memory of that part."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemeta.data.dataset import Indices, reading
from edgemeta.errors import DataError


def read_records(path: Path, stride: int, first: int, records: Indices, out: NDArray[np.uint8], rows: Indices) -> None:
    """Read records into the `rows` of out: (N, length); record i starts at byte first + i * stride."""
    with reading(path), open(path, "rb", buffering=0) as file:
        for record, row in zip(records.tolist(), rows.tolist(), strict=True):
            file.seek(first + record * stride)
            if file.readinto(out[row].data) != out.shape[1]:
                raise DataError(f"{path} became shorter while it was in use: restore it, and start again")
