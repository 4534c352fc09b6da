"""ShardReader: rows of a dataset -> arrays, gathered over its shards through memory maps.

Shape letters: V videos of the dataset, B rows that are asked for, F frames, L grid cells, C token
features, E embedding features, S mask slots.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ShardError
from pipeline.shards.index import ShardIndex
from pipeline.shards.layout import Spec, dataset_specs
from pipeline.shards.mapping import MappedShard, map_shard

_MAX_OPEN = 256
"""Maps held at a time: each costs a file descriptor, and 1,024 are a usual limit."""
_MAX_THREADS = 8


class MaskRows(NamedTuple):
    """Masks of B videos over the full frame, 128 x 128 cells, bit-packed in np.packbits order."""

    bits: NDArray[np.uint8]
    """(B, F, S, 2048)."""
    found: NDArray[np.bool_]
    """(B, F, S); False means "no supervision", never "empty mask"."""
    score: NDArray[np.float16]
    """(B, F, S) in [0, 1]."""


class ShardReader:
    """Reads a dataset's features; rows are its videos sorted by id.

    Nothing is opened before it is needed, and each process opens its own: a reader can be pickled
    and used after a fork. A shard is checked when it is first touched.

    Args:
        folder: holds index.json and the shards.
        verify: compare each shard's sha256 on first use; False checks structure and size alone.

    Raises:
        ShardError: the index is absent, changed, of another version, or lists no video.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.index = ShardIndex.load(self.folder)
        videos = self.index.videos
        if not videos:
            raise ShardError(
                f"{self.folder} holds no video ({len(self.index.failures)} failed); at least one "
                "was needed; see `i2st info` for the reasons and extract again"
            )
        self.video_ids: tuple[str, ...] = tuple(video.video_id for video in videos)
        self.class_names: list[str] = self.index.class_names
        position = {name: i for i, name in enumerate(self.class_names)}
        self.class_index: NDArray[np.int64] = np.array([position[v.class_name] for v in videos])
        """(V,) into ``class_names``."""
        self.split: NDArray[np.str_] = np.array([video.split for video in videos])
        """(V,) train, val or test."""
        self.groups: NDArray[np.str_] = np.array([v.group or v.video_id for v in videos])
        """(V,) source of the clip; a video without one is its own group."""
        self._shard: NDArray[np.int64] = np.array([video.shard for video in videos])
        self._row: NDArray[np.int64] = np.array([video.row for video in videos])
        self._records = {record.number: record for record in self.index.shards}
        self._verify = verify
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        self._checked: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_checked": set()}

    @property
    def num_videos(self) -> int:
        """V."""
        return len(self.video_ids)

    @property
    def has_masks(self) -> bool:
        """Whether train rows have masks."""
        return self.index.has_masks

    def tokens(self, rows: ArrayLike) -> NDArray[np.float16]:
        """Return (B, F, L, C) token features of the rows, in their order."""
        return self._gather("tokens", rows)

    def frame_embedding(self, rows: ArrayLike) -> NDArray[np.float16]:
        """Return (B, F, E) pooled embeddings of the rows, in their order."""
        return self._gather("frame_embedding", rows)

    def frame_indices(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Return (B, F): which decoded frames were stored."""
        return self._gather("frame_indices", rows)

    def masks(self, rows: ArrayLike) -> MaskRows:
        """Return the masks of train rows, in their order.

        Args:
            rows: (B,) integers in 0..V-1; all of the train split.

        Returns:
            Masks with a leading axis B.

        Raises:
            ShardError: the dataset has no masks, or a row is of another split: masks depend on
                the label, so they must not reach val and test.
        """
        chosen = self._check_rows(rows)
        if not self.has_masks:
            raise ShardError(
                f"{self.folder} has no masks (it was extracted without a segmenter); masks were "
                "asked for; extract into another folder with `--segmenter precomputed --masks DIR`"
            )
        outside = np.flatnonzero(self.split[chosen] != "train")
        if outside.size:
            first = int(chosen[outside[0]])
            raise ShardError(
                f"{self.video_ids[first]!r} is of split {self.split[first]!s}; masks depend on "
                "the label and exist for train alone; ask for train videos"
            )
        found = self._gather("mask_found", chosen).view(np.uint8) != 0
        return MaskRows(
            self._gather("mask_bits", chosen), found, self._gather("mask_score", chosen)
        )

    def _check_rows(self, rows: ArrayLike) -> NDArray[np.int64]:
        chosen = np.asarray(rows)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise ValueError(f"rows must be (B,) integers, got {chosen.dtype} {chosen.shape}")
        if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.num_videos:
            raise IndexError(
                f"rows reach from {chosen.min()} to {chosen.max()}, the dataset has rows "
                f"0 to {self.num_videos - 1}"
            )
        return chosen.astype(np.int64, copy=False)

    def _gather(self, name: str, rows: ArrayLike) -> NDArray:
        chosen = self._check_rows(rows)
        shards, inside = self._shard[chosen], self._row[chosen]
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        wanted = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=False))
        self._check_new(list(wanted))
        out = np.empty(*self._spec(name, len(chosen)))
        for block in _blocks(list(wanted), _MAX_OPEN):
            opened = [self._mapped(number) for number in block]
            for shard, number in zip(opened, block, strict=True):
                shard.prefetch(name, inside[wanted[number]].tolist())
            for shard, number in zip(opened, block, strict=True):
                _copy_rows(shard.arrays[name], inside[wanted[number]], out, wanted[number])
        return out

    def _spec(self, name: str, num_videos: int) -> Spec:
        slots = self.index.num_slots
        return dataset_specs(self.index.shape, num_videos=num_videos, num_slots=slots)[name]

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
        return map_shard(self.folder, self._records[number], self.index.shape, verify=self._verify)

    def _mapped(self, number: int) -> MappedShard:
        if number not in self._open:
            self._open[number] = self._map(number)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def _copy_rows(
    source: NDArray, rows: NDArray[np.int64], out: NDArray, positions: NDArray[np.int64]
) -> None:
    # Row by row, since `out[positions] = source[rows]` copies everything twice.
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        out[position] = source[row]


def _blocks(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]
