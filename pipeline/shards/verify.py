"""Recomputes every checksum of a dataset: of the index, the shards, the rows and the whole."""

from pathlib import Path

import numpy as np

from pipeline.errors import ShardError
from pipeline.shards.index import INDEX_NAME, ShardIndex
from pipeline.shards.layout import row_checksums
from pipeline.shards.mapping import MappedShard, forget_checked, map_shard
from pipeline.shards.records import (
    ShardLayout,
    ShardRecord,
    VideoRow,
    dataset_digest,
    shard_name,
)


def verify(folder: Path) -> list[str]:
    """Find what is wrong with a dataset.

    Every byte is read again, whatever was verified before. Goes on after a fault, so that one
    damaged shard does not hide another.

    Args:
        folder: of the dataset.

    Returns:
        One line per fault; empty when all is right.

    Raises:
        ConfigError: the folder holds no shards.
    """
    folder = Path(folder)
    forget_checked()
    try:
        index = ShardIndex.load(folder)
    except ShardError as error:
        return [str(error)]
    problems = []
    if dataset_digest(index.videos) != index.digest:
        problems.append(f"{folder / INDEX_NAME}: the digest is not that of its videos")
    rows: dict[int, list[VideoRow]] = {}
    for video in index.videos:
        rows.setdefault(video.shard, []).append(video)
    layouts, class_names = index.layouts(), index.class_names
    for record in index.shards:
        layout, videos = layouts[record.number], rows[record.number]
        problems += _verify_shard(folder, record, layout, videos, class_names)
    return problems


def _verify_shard(
    folder: Path,
    record: ShardRecord,
    layout: ShardLayout,
    videos: list[VideoRow],
    class_names: list[str],
) -> list[str]:
    try:
        shard = map_shard(folder, record, layout)
    except ShardError as error:
        return [str(error)]
    path = folder / shard_name(record.number)
    faults = [(video, _wrong(shard, video, class_names)) for video in videos]
    return [
        f"{path}, row {video.row}: {', '.join(wrong)} of {video.video_id!r} differ from the index"
        for video, wrong in faults
        if wrong
    ]


def _wrong(shard: MappedShard, video: VideoRow, class_names: list[str]) -> list[str]:
    """Return the names of the facts that the shard and the index tell differently."""
    arrays, i = shard.arrays, video.row
    with_masks = video.split == "train" and "mask_bits" in arrays
    sums = row_checksums(arrays, i, with_masks=with_masks)
    stored = {
        "video_id": (arrays["video_id"][i], video.video_id.encode()),
        "split": (arrays["split"][i], video.split.encode()),
        "class_index": (arrays["class_index"][i], class_names.index(video.class_name)),
        "num_frames_decoded": (arrays["num_frames_decoded"][i], video.num_frames_decoded),
        "num_frames_expected": (arrays["num_frames_expected"][i], video.num_frames_expected),
        "num_damaged_packets": (arrays["num_damaged_packets"][i], video.num_damaged_packets),
        "sha256": (sums.content, video.sha256),
        "features_sha256": (
            sums.features if video.features_sha256 else "",
            video.features_sha256,
        ),
        "masks": (not with_masks and "mask_found" in arrays and _any_mask(shard, i), False),
    }
    return [name for name, (there, here) in stored.items() if there != here]


def _any_mask(shard: MappedShard, i: int) -> bool:
    return any(np.any(shard.arrays[name][i]) for name in ("mask_bits", "mask_found", "mask_score"))
