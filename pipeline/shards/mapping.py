"""One shard as arrays over a memory map: checked on first use, then read without HDF5.

The map, not h5py, serves the reads: it is several times faster for rows that are in memory.
"""

import mmap
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.shards.files import open_regular, sha256_of
from pipeline.shards.layout import dataset_specs
from pipeline.shards.records import ShardLayout, ShardRecord, shard_name
from pipeline.shards.structure import Place, dataset_places

_SETTLED_SECONDS = 2.0
"""A file younger than this may change again within one tick of its clock, unnoticed."""

_Key = tuple[int, int, int, int, int, ShardRecord, ShardLayout, bool]
_checked: dict[_Key, dict[str, Place]] = {}
"""Files that passed in this process -> places of datasets; a changed file has another key."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class MappedShard:
    """The datasets of one shard, read-only."""

    arrays: dict[str, NDArray]
    memory: mmap.mmap
    starts: dict[str, int]
    """Offset of each dataset in bytes."""

    def rows(self, name: str) -> NDArray:
        """A dataset with one row per video, or per video and view: row m x V + v."""
        array = self.arrays[name]
        is_viewed = name.startswith("view_") and name != "view_row"
        return array.reshape(-1, *array.shape[2:]) if is_viewed else array

    def prefetch(self, name: str, rows: Iterable[int]) -> None:
        """Ask the kernel to read rows of a dataset before they are touched.

        Without it every page that is not in memory is one wait; the kernel then reads a few pages
        at a time, at a fraction of the disk's speed.
        """
        if not hasattr(self.memory, "madvise"):
            return
        row_bytes = self.rows(name)[:1].nbytes
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
    folder: Path, record: ShardRecord, layout: ShardLayout, *, verify: bool = True
) -> MappedShard:
    """Open a shard, check it and map it.

    Args:
        folder: of the dataset.
        record: what index.json says of the shard.
        layout: of the shard.
        verify: compare the file's sha256; once per process and unchanged file.

    Returns:
        The mapped shard.

    Raises:
        ShardError: the file is absent, damaged, of another run, or not plain arrays.
    """
    path = Path(folder) / shard_name(record.number)
    specs = dataset_specs(layout)
    descriptor = open_regular(path)
    try:
        status = os.fstat(descriptor)
        times = (status.st_mtime_ns, status.st_ctime_ns)
        key = (status.st_dev, status.st_ino, status.st_size, *times, record, layout, verify)
        if key not in _checked:
            _check_content(descriptor, path, record, verify)
            # libhdf5 is not safe to enter from two threads through a Python file.
            with _lock:
                places = dataset_places(descriptor, path, specs)
            if time.time() - status.st_ctime > _SETTLED_SECONDS:
                _checked[key] = places
        else:
            places = _checked[key]
        memory = mmap.mmap(descriptor, record.size_bytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    arrays = {
        name: np.ndarray(sizes, specs[name][1], buffer=memory, offset=offset)
        for name, (offset, sizes) in places.items()
    }
    _check_tables(arrays, layout, path)
    return MappedShard(arrays, memory, {name: place.offset for name, place in places.items()})


def _check_tables(arrays: Mapping[str, NDArray], layout: ShardLayout, path: Path) -> None:
    """Refuse a shard whose tables of places lead elsewhere than into the shard."""
    if "view_row" in arrays and tuple(arrays["view_row"].tolist()) != layout.viewed_rows:
        raise _not_ours(path, "view_row does not list the train videos")
    if "jpeg" in arrays:
        ends = arrays["jpeg_end"].ravel()
        lengths = np.diff(ends, prepend=0)
        if ends[-1] != len(arrays["jpeg"]) or bool((lengths <= 0).any()):
            raise _not_ours(path, "jpeg_end does not divide jpeg")


def _not_ours(path: Path, why: str) -> ShardError:
    return ShardError(
        f"{path} is not a shard as i2st writes it ({why}); delete it and run `i2st extract` again"
    )


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
