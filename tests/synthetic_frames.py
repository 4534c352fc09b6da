"""Stores of frames without videos: every class has a colour of its own, shown in a square.

The square lies anywhere on coloured noise, masks mark it, and it is all that tells classes apart.
"""

import numpy as np

from pipeline.manifests import Video
from pipeline.masks import pack_masks
from pipeline.segmenters import Masks
from pipeline.shards.committed import finish
from pipeline.shards.jpegs import encode_frames, frame_store
from pipeline.shards.reader import ShardReader
from pipeline.shards.rows import VideoFrames
from pipeline.shards.writer import ShardWriter

FINGERPRINT = {
    "decoder": {"name": "none", "version": "1"},
    "frames": {"count": 3, "rule": "segment_centres"},
    "store": frame_store(64),
}
CELLS = 128


def make_frame_shards(
    folder, *, name="toy", classes=(6, 5, 5), videos=6, frames=3, size=(64, 64), masks=True, seed=0
):
    """Write a dataset with train, val and test classes, and open it."""
    rng = np.random.default_rng(seed)
    names = {
        split: [f"{split} {number}" for number in range(count)]
        for split, count in zip(("train", "val", "test"), classes, strict=True)
    }
    everything = [one for some in names.values() for one in some]
    writer = ShardWriter(folder, FINGERPRINT, class_names=everything)
    folder.mkdir(parents=True)
    for shard, (split, class_name) in enumerate((s, c) for s, some in names.items() for c in some):
        colour = rng.integers(0, 256, size=3)
        rows = []
        for number in range(videos):
            video_id = f"{class_name}/{number:02d}"
            video = Video(
                video_id=video_id, path=video_id, class_name=class_name, split=split, group=""
            )
            rows.append(_row(rng, video, colour, frames, size, masks and split == "train"))
        writer.write(shard, rows, [])
    finish(folder, {"name": name, "classes": names}, FINGERPRINT)
    return ShardReader(folder)


def _row(rng, video, colour, frames, size, with_masks):
    corner = rng.integers(0, CELLS // 2, size=2)
    inside = np.zeros((CELLS, CELLS), bool)
    inside[corner[0] : corner[0] + CELLS // 2, corner[1] : corner[1] + CELLS // 2] = True
    shown = inside[np.arange(size[0]) * CELLS // size[0]][:, np.arange(size[1]) * CELLS // size[1]]
    noise = rng.integers(0, 256, size=3) + rng.normal(0, 20, (frames, *size, 3))
    pictures = np.where(shown[..., None], colour, noise).clip(0, 255).astype(np.uint8)
    jpegs, frame_size = encode_frames(pictures, min(size))
    found = Masks(
        bits=pack_masks(np.repeat(inside[None, None], frames, axis=0)),
        found=np.ones((frames, 1), dtype=bool),
        score=np.ones((frames, 1), dtype=np.float16),
    )
    return VideoFrames(
        video=video,
        masks=found if with_masks else None,
        frame_indices=np.arange(frames, dtype=np.int32),
        num_frames_decoded=frames,
        num_frames_expected=frames,
        num_damaged_packets=0,
        jpegs=jpegs,
        frame_size=frame_size,
    )
