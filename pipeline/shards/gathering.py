"""Rows of a dataset's arrays, gathered over its shards through memory maps.

Shape letters: V videos of the dataset, B rows that are asked for.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.shards.index import ShardIndex
from pipeline.shards.layout import VIEW_OF, Spec, dataset_specs
from pipeline.shards.mapping import MappedShard, map_shard
from pipeline.shards.records import ShardLayout

_MAX_OPEN = 256
"""Maps held at a time: each costs two file descriptors, and 1,024 are a usual limit."""
_MAX_THREADS = 8

Rows = NDArray[np.int64]


class RowGatherer:
    """Gathers rows of any dataset; nothing is opened before it is needed.

    Args:
        folder: holds the shards.
        index: its index.
        verify: compare each shard's sha256 on first use.
    """

    def __init__(self, folder: Path, index: ShardIndex, *, verify: bool) -> None:
        self._folder, self._index, self._verify = folder, index, verify
        self._shard: Rows = np.array([video.shard for video in index.videos], np.int64)
        self._row: Rows = np.array([video.row for video in index.videos], np.int64)
        self._records = {record.number: record for record in index.shards}
        self._layouts = index.layouts()
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        self._checked: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_checked": set()}

    def close(self) -> None:
        """Unmap all shards; one that is needed again is mapped again."""
        self._open.clear()

    def gather(self, name: str, rows: Rows, views: Rows | None) -> NDArray:
        """Copy rows of a dataset.

        Args:
            name: of the base view's dataset.
            rows: (B,) in 0..V-1.
            views: (B,) 0 for the base view, k for the k-th stored view, of train rows alone; None
                is the base view of all.

        Returns:
            (B, ...) in the order of the rows.
        """
        wanted = self._wanted(rows)  # before anything of the size that the index claims is made
        out = np.empty(*self._spec(name, len(rows)))
        places = self._row[rows]
        if views is None:
            self._copy(name, wanted, places, out)
            return out
        stored = views > 0
        places[stored] = self._view_places(rows[stored], views[stored])
        for source, chosen in ((name, ~stored), (VIEW_OF[name], stored)):
            parts = {number: part[chosen[part]] for number, part in wanted.items()}
            self._copy(source, {n: part for n, part in parts.items() if part.size}, places, out)
        return out

    def each(self, rows: Rows) -> Iterator[tuple[int, MappedShard, int]]:
        """Yield (position among the rows, its shard, its row there), shard by shard."""
        for number, positions in self._wanted(rows).items():
            shard = self._mapped(number)
            for position in positions.tolist():
                yield position, shard, int(self._row[rows[position]])

    def _view_places(self, rows: Rows, views: Rows) -> Rows:
        """Rows of `MappedShard.rows` of a view's dataset."""
        num_views = len(self._index.view_names)
        places = [
            self._layouts[shard].viewed_rows.index(row)
            for shard, row in zip(self._shard[rows].tolist(), self._row[rows].tolist(), strict=True)
        ]
        return np.array(places, np.int64) * num_views + views - 1

    def _wanted(self, rows: Rows) -> dict[int, Rows]:
        """Shard number -> positions of its rows; shards that were not used yet are checked."""
        shards = self._shard[rows]
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        wanted = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=False))
        self._check_new(list(wanted))
        return wanted

    def _copy(self, name: str, wanted: Mapping[int, Rows], places: Rows, out: NDArray) -> None:
        """Copy a dataset's row ``places[position]`` of each shard to ``out[position]``."""
        for block in _blocks(list(wanted), _MAX_OPEN):
            left: list[tuple[MappedShard, list[int], list[int]]] = []
            for number in block:
                shard, positions = self._mapped(number), wanted[number].tolist()
                shard_rows = places[wanted[number]].tolist()
                late = shard.copy_present(name, shard_rows, out, positions)
                left.append((shard, [shard_rows[i] for i in late], [positions[i] for i in late]))
            # All reads are under way before the first is waited for.
            for shard, shard_rows, _ in left:
                shard.prefetch(name, shard_rows)
            for shard, shard_rows, positions in left:
                shard.copy(name, shard_rows, out, positions)

    def _spec(self, name: str, num_videos: int) -> Spec:
        index = self._index
        layout = ShardLayout(index.stores, index.shape, num_videos, index.num_slots)
        return dataset_specs(layout)[name]

    def _check_new(self, numbers: Sequence[int]) -> None:
        """Check shards that were not used yet, in threads: sha256 leaves Python's lock alone."""
        new = [number for number in numbers if number not in self._checked]
        if len(new) == 1:
            self._mapped(new[0])
        elif new:
            with ThreadPoolExecutor(_MAX_THREADS) as pool:
                for number, shard in zip(new, pool.map(self._map, new), strict=True):
                    if len(self._open) < _MAX_OPEN:
                        self._open[number] = shard
        self._checked.update(new)

    def _map(self, number: int) -> MappedShard:
        record, layout = self._records[number], self._layouts[number]
        return map_shard(self._folder, record, layout, verify=self._verify)

    def _mapped(self, number: int) -> MappedShard:
        if number not in self._open:
            self._open[number] = self._map(number)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def _blocks(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]
