"""One shard as arrays over a memory map: checked on first use, then read without HDF5.

Small rows are copied from the map, several times faster than h5py. Large rows are copied by the
kernel from the same places: it reaches them without walking thousands of small pages.
"""

import errno
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.shards.files import failed_read, open_regular, sha256_of
from pipeline.shards.layout import dataset_specs
from pipeline.shards.records import ShardLayout, ShardRecord, shard_name
from pipeline.shards.structure import Place, dataset_places

_SETTLED_SECONDS = 2.0
"""A file younger than this may change again within one tick of its clock, unnoticed."""

_LARGE_BYTES = 1 << 16
"""Rows from this size on are read by the kernel; below, the call costs more than the pages."""
_ONLY_PRESENT: int | None = getattr(os, "RWF_NOWAIT", None)
"""Flag of preadv: give what is in memory, wait for nothing."""

_Key = tuple[int, int, int, int, int, ShardRecord, ShardLayout, bool]
_checked: dict[_Key, dict[str, Place]] = {}
"""Files that passed in this process -> places of datasets; a changed file has another key."""
_lock = threading.Lock()


@dataclass(frozen=True)
class MappedShard:
    """The datasets of one shard, read-only; its file is open as long as the shard is held."""

    path: Path
    descriptor: int
    arrays: dict[str, NDArray]
    memory: mmap.mmap
    starts: dict[str, int]
    """Offset of each dataset in bytes."""

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)

    def rows(self, name: str) -> NDArray:
        """A dataset with one row per video, or per video and view: row m x V + v."""
        array = self.arrays[name]
        is_viewed = name.startswith("view_") and name != "view_row"
        return array.reshape(-1, *array.shape[2:]) if is_viewed else array

    def copy_present(
        self, name: str, rows: Sequence[int], out: NDArray, positions: Sequence[int]
    ) -> list[int]:
        """Copy those large rows that the kernel holds in memory, without waiting for a disk.

        Args:
            name: of a dataset.
            rows: of `rows(name)`.
            out: receives row ``rows[i]`` at ``positions[i]``.
            positions: as many as rows.

        Returns:
            Which i are left to `prefetch` and `copy`.
        """
        if _ONLY_PRESENT is None or not self._is_large(name):
            return list(range(len(rows)))
        pairs = enumerate(zip(rows, positions, strict=True))
        return [i for i, (row, at) in pairs if not self._read(name, row, out[at], _ONLY_PRESENT)]

    def copy(self, name: str, rows: Sequence[int], out: NDArray, positions: Sequence[int]) -> None:
        """Copy rows, and wait for those that are on the disk.

        Args:
            name: of a dataset.
            rows: of `rows(name)`.
            out: receives row ``rows[i]`` at ``positions[i]``.
            positions: as many as rows.

        Raises:
            ShardError: the file was cut short after it was opened.
            ResourceError: the disk fails.
        """
        source, is_large = self.rows(name), self._is_large(name)
        for row, position in zip(rows, positions, strict=True):
            if not is_large:
                out[position] = source[row]
            elif not self._read(name, row, out[position], 0):
                raise ShardError(
                    f"{self.path} was cut short while it was read; {self.memory.size()} bytes are "
                    "left; delete it and run `i2st extract` again"
                )

    def _is_large(self, name: str) -> bool:
        return self.rows(name)[:1].nbytes >= _LARGE_BYTES and hasattr(os, "preadv")

    def _read(self, name: str, row: int, out: NDArray, flags: int) -> bool:
        """Whether the whole row could be read."""
        try:
            place = self.starts[name] + row * out.nbytes
            return os.preadv(self.descriptor, [out.data], place, flags) == out.nbytes
        except OSError as error:
            # Nothing of it is in memory, or the file system does not say.
            if flags and error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise failed_read(error, self.path) from error

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
        ResourceError: the disk fails, or too many files are open.
    """
    path = Path(folder) / shard_name(record.number)
    descriptor = open_regular(path)
    try:
        arrays, memory, starts = _map(descriptor, path, record, layout, verify)
        _check_tables(arrays, layout, path)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise failed_read(error, path) from error
        raise
    return MappedShard(path, descriptor, arrays, memory, starts)


def _map(
    descriptor: int, path: Path, record: ShardRecord, layout: ShardLayout, verify: bool
) -> tuple[dict[str, NDArray], mmap.mmap, dict[str, int]]:
    """Arrays over the map of an open shard, the map, and where each array begins."""
    places = _checked_places(descriptor, path, record, layout, verify)
    memory = mmap.mmap(descriptor, record.size_bytes, access=mmap.ACCESS_READ)
    specs = dataset_specs(layout)
    arrays = {
        name: np.ndarray(sizes, specs[name][1], buffer=memory, offset=offset)
        for name, (offset, sizes) in places.items()
    }
    return arrays, memory, {name: place.offset for name, place in places.items()}


def _checked_places(
    descriptor: int, path: Path, record: ShardRecord, layout: ShardLayout, verify: bool
) -> dict[str, Place]:
    """Where the datasets lie; a file is checked once per process, unless it changes."""
    status = os.fstat(descriptor)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    key = (status.st_dev, status.st_ino, status.st_size, *times, record, layout, verify)
    if key in _checked:
        return _checked[key]
    _check_content(descriptor, path, record, verify)
    # libhdf5 is not safe to enter from two threads through a Python file.
    with _lock:
        places = dataset_places(descriptor, path, dataset_specs(layout))
    if time.time() - status.st_ctime > _SETTLED_SECONDS:
        _checked[key] = places
    return places


def _check_tables(arrays: Mapping[str, NDArray], layout: ShardLayout, path: Path) -> None:
    """Refuse a shard whose tables of places lead elsewhere than into the shard."""
    if "view_row" in arrays and tuple(arrays["view_row"].tolist()) != layout.viewed_rows:
        raise _not_ours(path, "view_row does not list the train videos")
    if "jpeg" in arrays:
        # Compared, since differences of forged numbers may overflow.
        ends = np.concatenate([[0], arrays["jpeg_end"].ravel()])
        if ends[-1] != len(arrays["jpeg"]) or bool((ends[1:] <= ends[:-1]).any()):
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
