"""ShardWriter: rows of features -> an HDF5 image in memory -> a file -> the record that commits it.

HDF5 never writes to a disk here: a killed or full-disk write through it leaves files that do not
open, or crashes the process. The image is a byte string, and ordinary writes fail cleanly.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.shards.failpoints import failpoint
from pipeline.shards.files import write_atomically
from pipeline.shards.filling import StoredRow, common_layout, fill_arrays
from pipeline.shards.layout import row_checksums
from pipeline.shards.records import Failure, ShardRecord, VideoRow, shard_name, sidecar_name
from pipeline.shards.rows import VideoFeatures
from pipeline.shards.sidecar import Sidecar
from pipeline.shards.structure import build_image

__all__ = ["ShardWriter", "VideoFeatures"]


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

    def write(self, number: int, rows: Sequence[StoredRow], failures: Sequence[Failure]) -> None:
        """Write one shard; when this returns it is on disk and committed.

        Args:
            number: of the shard; one that is there already is replaced.
            rows: finished videos in any order: features, or frames where the fingerprint has
                ``store``. Train rows have the views that it lists under ``views``.
            failures: videos of this shard that could not be used; with no row at all, only the
                record is written.

        Raises:
            ValueError: rows differ in shape or dtype, ids repeat, a row outside the train split
                has masks or views, or rows are not what the fingerprint says.
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

    def _write_shard(self, sidecar: Sidecar, rows: Sequence[StoredRow]) -> Sidecar:
        """Write the shard file and return the sidecar with what it holds."""
        failpoint("image.before")
        number, rows = sidecar.number, sorted(rows, key=lambda row: row.video.video_id)
        layout = common_layout(rows, self.fingerprint)
        arrays = fill_arrays(layout, rows, self._class_index)
        image = build_image(arrays)
        failpoint("image.built")
        write_atomically(self.folder / shard_name(number), image, kind="shard")
        sha256 = hashlib.sha256(image).hexdigest()
        return replace(
            sidecar,
            shape=layout.shape,
            shards=(ShardRecord(number, len(rows), layout.num_slots, len(image), sha256),),
            videos=tuple(_video_row(number, i, row, arrays) for i, row in enumerate(rows)),
        )


def _video_row(number: int, i: int, row: StoredRow, arrays: Mapping[str, NDArray]) -> VideoRow:
    video = row.video
    sums = row_checksums(arrays, i, with_masks=row.masks is not None)
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
        sha256=sums.content,
        features_sha256=sums.features,
    )
