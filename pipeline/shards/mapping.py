"""One shard as arrays over a memory map: checked on first use, then read without HDF5.

The map, not h5py, serves the reads: it is several times faster for rows that are in memory.
"""

import mmap
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.shards.files import open_regular, sha256_of
from pipeline.shards.layout import dataset_specs
from pipeline.shards.records import FeatureShape, ShardRecord, shard_name
from pipeline.shards.structure import dataset_offsets

_SETTLED_SECONDS = 2.0
"""A file younger than this may change again within one tick of its clock, unnoticed."""

_Key = tuple[int, int, int, int, int, ShardRecord, FeatureShape, bool]
_checked: dict[_Key, dict[str, int]] = {}
"""Files that passed in this process -> offsets of datasets; a changed file has another key."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class MappedShard:
    """The datasets of one shard, read-only."""

    arrays: dict[str, NDArray]
    memory: mmap.mmap
    starts: dict[str, int]
    """Offset of each dataset in bytes."""

    def prefetch(self, name: str, rows: Iterable[int]) -> None:
        """Ask the kernel to read rows of a dataset before they are touched.

        Without it every page that is not in memory is one wait; the kernel then reads a few pages
        at a time, at a fraction of the disk's speed.
        """
        if not hasattr(self.memory, "madvise"):
            return
        row_bytes = self.arrays[name][:1].nbytes
        for first, last in _runs(rows):
            start = self.starts[name] + first * row_bytes
            end = self.starts[name] + (last + 1) * row_bytes
            start -= start % mmap.PAGESIZE
            self.memory.madvise(mmap.MADV_WILLNEED, start, end - start)


def _runs(rows: Iterable[int]) -> list[tuple[int, int]]:
    """Return first and last of each run of neighbours, e.g. 1 2 3 7 -> (1, 3) (7, 7)."""
    runs: list[tuple[int, int]] = []
    for row in sorted(set(rows)):
        if runs and runs[-1][1] == row - 1:
            runs[-1] = (runs[-1][0], row)
        else:
            runs.append((row, row))
    return runs


def map_shard(
    folder: Path, record: ShardRecord, shape: FeatureShape, *, verify: bool = True
) -> MappedShard:
    """Open a shard, check it and map it.

    Args:
        folder: of the dataset.
        record: what index.json says of the shard.
        shape: F, L, C and E of the dataset.
        verify: compare the file's sha256; once per process and unchanged file.

    Returns:
        The mapped shard.

    Raises:
        ShardError: the file is absent, damaged, of another run, or not plain arrays.
    """
    path = Path(folder) / shard_name(record.number)
    specs = dataset_specs(shape, num_videos=record.num_videos, num_slots=record.num_slots)
    descriptor = open_regular(path)
    try:
        status = os.fstat(descriptor)
        times = (status.st_mtime_ns, status.st_ctime_ns)
        key = (status.st_dev, status.st_ino, status.st_size, *times, record, shape, verify)
        if key not in _checked:
            _check_content(descriptor, path, record, verify)
            # libhdf5 is not safe to enter from two threads through a Python file.
            with _lock:
                starts = dataset_offsets(descriptor, path, specs)
            if time.time() - status.st_ctime > _SETTLED_SECONDS:
                _checked[key] = starts
        else:
            starts = _checked[key]
        memory = mmap.mmap(descriptor, record.size_bytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    arrays = {
        name: np.ndarray(sizes, dtype, buffer=memory, offset=starts[name])
        for name, (sizes, dtype) in specs.items()
    }
    return MappedShard(arrays, memory, starts)


def _check_content(descriptor: int, path: Path, record: ShardRecord, verify: bool) -> None:
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes != record.size_bytes:
        raise ShardError(
            f"{path} has {size_bytes} bytes; {record.size_bytes} were committed; "
            "delete it and run `i2st extract` again"
        )
    if verify and (sha256 := sha256_of(descriptor)) != record.sha256:
        raise ShardError(
            f"{path} has sha256 {sha256[:12]}..; {record.sha256[:12]}.. was committed; "
            "delete it and run `i2st extract` again"
        )


def forget_checked() -> None:
    """Make the next use of every shard check it again."""
    _checked.clear()
