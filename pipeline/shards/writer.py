"""ShardWriter: rows of features -> an HDF5 image in memory -> a file -> the record that commits it.

HDF5 never writes to a disk here: a killed or full-disk write through it leaves files that do not
open, or crashes the process. The image is a byte string, and ordinary writes fail cleanly.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import SPLITS, Video
from pipeline.segmenters import Masks
from pipeline.shards.failpoints import failpoint
from pipeline.shards.files import write_atomically
from pipeline.shards.layout import MAX_ID_BYTES, Spec, dataset_specs, row_sha256
from pipeline.shards.records import (
    Failure,
    FeatureShape,
    ShardRecord,
    VideoRow,
    shard_name,
    sidecar_name,
)
from pipeline.shards.sidecar import Sidecar
from pipeline.shards.structure import build_image


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFeatures:
    """What stage one makes of one video."""

    video: Video
    tokens: NDArray[np.float16]
    """(F, L, C) features on the grid."""
    frame_embedding: NDArray[np.float16]
    """(F, E) the encoder's own pooled embedding."""
    masks: Masks | None
    """None without a segmenter, and always None outside the train split."""
    frame_indices: NDArray[np.int32]
    """(F,) which decoded frames these are."""
    num_frames_decoded: int
    num_frames_expected: int
    num_damaged_packets: int


class ShardWriter:
    """Writes and commits single shards of a folder; several processes may, with distinct numbers.

    Args:
        folder: exists, and is locked by the caller (``FolderLock``).
        fingerprint: JSON values that decided the features; recorded with every shard.
        class_names: all classes of the manifest, in its order.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Any], *, class_names: Sequence[str]
    ) -> None:
        self.folder = Path(folder)
        self.fingerprint = dict(fingerprint)
        self._class_index = {name: position for position, name in enumerate(class_names)}

    def write(
        self, number: int, rows: Sequence[VideoFeatures], failures: Sequence[Failure]
    ) -> None:
        """Write one shard; when this returns it is on disk and committed.

        Args:
            number: of the shard; one that is there already is replaced.
            rows: finished videos in any order.
            failures: videos of this shard that could not be used; with no row at all, only the
                record is written.

        Raises:
            ValueError: rows differ in shape or dtype, ids repeat, or a row outside the train split
                has masks.
            ResourceError: the disk is full; nothing of this shard is left.
            ConfigError: the folder cannot be written.
        """
        empty = Sidecar(
            number=number,
            fingerprint=self.fingerprint,
            shape=None,
            shards=(),
            videos=(),
            failures=tuple(sorted(failures)),
        )
        sidecar = self._write_shard(empty, rows) if rows else empty
        path = self.folder / sidecar_name(number)
        write_atomically(path, sidecar.to_bytes(), kind="sidecar")

    def _write_shard(self, sidecar: Sidecar, rows: Sequence[VideoFeatures]) -> Sidecar:
        """Write the shard file and return the sidecar with what it holds."""
        failpoint("image.before")
        number, rows = sidecar.number, sorted(rows, key=lambda row: row.video.video_id)
        _check_ids([row.video.video_id for row in rows])
        shape, num_slots = _common_shape(rows)
        specs = dataset_specs(shape, num_videos=len(rows), num_slots=num_slots)
        arrays = self._fill(specs, rows)
        image = build_image(arrays)
        failpoint("image.built")
        write_atomically(self.folder / shard_name(number), image, kind="shard")
        sha256 = hashlib.sha256(image).hexdigest()
        return replace(
            sidecar,
            shape=shape,
            shards=(ShardRecord(number, len(rows), num_slots, len(image), sha256),),
            videos=tuple(_video_row(number, i, row, arrays) for i, row in enumerate(rows)),
        )

    def _fill(self, specs: Mapping[str, Spec], rows: Sequence[VideoFeatures]) -> dict[str, NDArray]:
        arrays = {name: np.zeros(sizes, dtype) for name, (sizes, dtype) in specs.items()}
        for i, row in enumerate(rows):
            values = {
                "tokens": row.tokens,
                "frame_embedding": row.frame_embedding,
                "frame_indices": row.frame_indices,
                "num_frames_decoded": row.num_frames_decoded,
                "num_frames_expected": row.num_frames_expected,
                "num_damaged_packets": row.num_damaged_packets,
                "video_id": row.video.video_id.encode(),
                "class_index": self._class_index[row.video.class_name],
                "split": row.video.split.encode(),
            }
            if row.masks is not None:
                values |= {
                    "mask_bits": row.masks.bits,
                    "mask_found": row.masks.found,
                    "mask_score": row.masks.score,
                }
            for name, value in values.items():
                _put(arrays[name], i, value, name, row.video.video_id)
        return arrays


def _put(array: NDArray, i: int, value: Any, name: str, video_id: str) -> None:
    is_array = isinstance(value, np.ndarray)
    if is_array and (value.shape != array.shape[1:] or value.dtype != array.dtype):
        raise ValueError(
            f"{name} of {video_id} is {value.dtype} {value.shape}, the shard's other rows "
            f"need {array.dtype} {array.shape[1:]}"
        )
    array[i] = value


def _check_ids(ids: Sequence[str]) -> None:
    for video_id in ids:
        if not video_id.isprintable() or not 0 < len(video_id.encode()) <= MAX_ID_BYTES:
            raise ValueError(
                f"video id {video_id!r} must be printable and 1 to {MAX_ID_BYTES} bytes of UTF-8"
            )
    if len(set(ids)) != len(ids):
        raise ValueError(f"video ids of a shard must differ, got {ids}")


def _common_shape(rows: Sequence[VideoFeatures]) -> tuple[FeatureShape, int]:
    """Return the shape of the shard from its first row, and the number of mask slots."""
    for row in rows:
        if row.video.split not in SPLITS or (row.masks is not None and row.video.split != "train"):
            raise ValueError(
                f"{row.video.video_id} is of split {row.video.split!r} and "
                f"{'has' if row.masks else 'has no'} masks; splits are {SPLITS}, and masks depend "
                "on the label, so only train rows may have them"
            )
    train_masks = [row.masks for row in rows if row.video.split == "train"]
    slots = {0 if masks is None else masks.found.shape[1] for masks in train_masks}
    if len(slots) > 1:
        raise ValueError(
            f"train rows of a shard have {sorted(slots)} mask slots; give all the same"
        )
    num_frames, num_tokens, token_dim = rows[0].tokens.shape
    shape = FeatureShape(num_frames, num_tokens, token_dim, rows[0].frame_embedding.shape[1])
    return shape, max(slots, default=0)


def _video_row(number: int, i: int, row: VideoFeatures, arrays: Mapping[str, NDArray]) -> VideoRow:
    video = row.video
    return VideoRow(
        video_id=video.video_id,
        class_name=video.class_name,
        split=video.split,
        group=video.group,
        shard=number,
        row=i,
        num_frames_decoded=row.num_frames_decoded,
        num_frames_expected=row.num_frames_expected,
        num_damaged_packets=row.num_damaged_packets,
        sha256=row_sha256(arrays, i, with_masks=row.masks is not None),
    )
