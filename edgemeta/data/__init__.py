"""Data: readers, the built-in synthetic set, partitions and noise. Only labels are read until pixels are used."""

from edgemeta.data.dataset import (
    Dataset,
    Split,
    check_apart,
    check_several,
    describe,
    from_arrays,
    own_classes,
    with_classes,
)
from edgemeta.data.noise import add_noise
from edgemeta.data.partitions import Partition, parse_partition, partition
from edgemeta.data.pictures import read_picture
from edgemeta.data.spec import open_data

__all__ = [
    "Dataset",
    "Partition",
    "Split",
    "add_noise",
    "check_apart",
    "check_several",
    "describe",
    "from_arrays",
    "open_data",
    "own_classes",
    "parse_partition",
    "partition",
    "read_picture",
    "with_classes",
]
