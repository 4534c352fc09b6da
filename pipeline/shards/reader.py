"""ShardReader: rows of a dataset -> arrays, gathered over its shards through memory maps.

Shape letters: V videos of the dataset, B rows that are asked for, F frames, L grid cells, C token
features, E embedding features, S mask slots, H and W pixels of a stored frame.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ShardError
from pipeline.shards.gathering import RowGatherer, Rows
from pipeline.shards.index import ShardIndex
from pipeline.shards.layout import jpeg_bounds


class MaskRows(NamedTuple):
    """Masks of B videos over the full frame, 128 x 128 cells, bit-packed in np.packbits order."""

    bits: NDArray[np.uint8]
    """(B, F, S, 2048)."""
    found: NDArray[np.bool_]
    """(B, F, S); False means "no supervision", never "empty mask"."""
    score: NDArray[np.float16]
    """(B, F, S) in [0, 1]."""


class ShardReader:
    """Reads a dataset's features or frames; rows are its videos sorted by id.

    Nothing is opened before it is needed, and each process opens its own: a reader can be pickled
    and used after a fork. A shard is checked when it is first touched.

    Where train videos have stored views, ``views`` chooses one for each row: 0 is the base view,
    k the k-th of `view_names`. Views, like masks, exist for training alone.

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
        self.view_names: tuple[str, ...] = self.index.view_names
        """Stored views of train videos, beside the base view."""
        self._gatherer = RowGatherer(self.folder, self.index, verify=verify)

    @property
    def num_videos(self) -> int:
        """V."""
        return len(self.video_ids)

    @property
    def has_masks(self) -> bool:
        """Whether train rows have masks."""
        return self.index.has_masks

    def tokens(self, rows: ArrayLike, views: ArrayLike | None = None) -> NDArray[np.float16]:
        """Return (B, F, L, C) token features of the rows, in their order."""
        self._require("features")
        return self._gather("tokens", rows, views)

    def frame_embedding(
        self, rows: ArrayLike, views: ArrayLike | None = None
    ) -> NDArray[np.float16]:
        """Return (B, F, E) pooled embeddings of the rows, in their order."""
        self._require("features")
        return self._gather("frame_embedding", rows, views)

    def frame_indices(self, rows: ArrayLike, views: ArrayLike | None = None) -> NDArray[np.int32]:
        """Return (B, F): which decoded frames were stored."""
        return self._gather("frame_indices", rows, views)

    def masks(self, rows: ArrayLike, views: ArrayLike | None = None) -> MaskRows:
        """Return the masks of train rows, in their order.

        Args:
            rows: (B,) integers in 0..V-1; all of the train split.
            views: (B,) which view of each row; its masks lie as the view shows them.

        Returns:
            Masks with a leading axis B.

        Raises:
            ShardError: the dataset has no masks, or a row is of another split: masks depend on
                the label, so they must not reach val and test.
        """
        chosen = self._masked_rows(rows)
        found = self._gather("mask_found", chosen, views).view(np.uint8) != 0
        return MaskRows(
            self._gather("mask_bits", chosen, views),
            found,
            self._gather("mask_score", chosen, views),
        )

    def with_masks(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Return (B,): whether a mask was found in any frame of each train row."""
        found = self._gather("mask_found", self._masked_rows(rows), None)
        return (found.view(np.uint8) != 0).any(axis=(1, 2))

    def jpegs(self, rows: ArrayLike) -> list[tuple[bytes, ...]]:
        """Return the F JPEG files of each row, in their order."""
        self._require("frames")
        chosen = self._check_rows(rows)
        files: list[tuple[bytes, ...]] = [()] * len(chosen)
        for position, shard, row in self._gatherer.each(chosen):
            bounds = jpeg_bounds(shard.arrays["jpeg_end"], row).tolist()
            jpeg = shard.arrays["jpeg"]
            files[position] = tuple(
                jpeg[first:end].tobytes() for first, end in zip(bounds, bounds[1:], strict=False)
            )
        return files

    def frame_sizes(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Return (B, 2): height and width in pixels of the stored frames of each row."""
        self._require("frames")
        return self._gather("frame_size", rows, None)

    def images(self, rows: ArrayLike) -> list[NDArray[np.uint8]]:
        """Decode the stored frames of the rows, in their order.

        Args:
            rows: (B,) integers in 0..V-1.

        Returns:
            B arrays (F, H, W, 3) uint8 RGB; H and W are each video's own.

        Raises:
            ShardError: the dataset holds features, or a frame does not decode.
        """
        from pipeline.shards.jpegs import decode_frame

        files = self.jpegs(rows)
        sizes = self.frame_sizes(rows).tolist()
        return [
            np.stack([decode_frame(data, (height, width)) for data in own])
            for own, (height, width) in zip(files, sizes, strict=True)
        ]

    def close(self) -> None:
        """Unmap all shards; the reader stays usable and maps again what it needs."""
        self._gatherer.close()

    def _require(self, stores: str) -> None:
        if self.index.stores != stores:
            raise ShardError(
                f"{self.folder} holds {self.index.stores}; {stores} were needed; extract into "
                f"another folder with `--store {stores}`"
            )

    def _require_train(self, rows: Rows, why: str) -> None:
        outside = np.flatnonzero(self.split[rows] != "train")
        if outside.size:
            first = int(rows[outside[0]])
            raise ShardError(
                f"{self.video_ids[first]!r} is of split {self.split[first]!s}; {why}; "
                "ask for train videos"
            )

    def _gather(self, name: str, rows: ArrayLike, views: ArrayLike | None) -> NDArray:
        chosen = self._check_rows(rows)
        return self._gatherer.gather(name, chosen, self._check_views(chosen, views))

    def _masked_rows(self, rows: ArrayLike) -> Rows:
        chosen = self._check_rows(rows)
        if not self.has_masks:
            raise ShardError(
                f"{self.folder} has no masks (it was extracted without a segmenter); masks were "
                "asked for; extract into another folder with `--segmenter precomputed "
                "--mask-files DIR`"
            )
        self._require_train(chosen, "masks depend on the label and exist for train alone")
        return chosen

    def _check_rows(self, rows: ArrayLike) -> Rows:
        chosen = _integers("rows", rows)
        if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.num_videos:
            raise IndexError(
                f"rows reach from {chosen.min()} to {chosen.max()}, the dataset has rows "
                f"0 to {self.num_videos - 1}"
            )
        return chosen

    def _check_views(self, rows: Rows, views: ArrayLike | None) -> Rows | None:
        if views is None:
            return None
        chosen, most = _integers("views", views), len(self.view_names)
        if len(chosen) != len(rows):
            raise ValueError(f"views are ({len(chosen)},), rows ({len(rows)},); one each is needed")
        if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) <= most:
            raise ShardError(
                f"views reach from {chosen.min()} to {chosen.max()}, {self.folder} stores views "
                f"0 to {most}; extract into another folder with `--views`"
            )
        self._require_train(rows[chosen > 0], "only train videos have stored views")
        return chosen


def _integers(what: str, values: ArrayLike) -> Rows:
    chosen = np.asarray(values)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise ValueError(f"{what} must be (B,) integers, got {chosen.dtype} {chosen.shape}")
    return chosen.astype(np.int64, copy=False)
