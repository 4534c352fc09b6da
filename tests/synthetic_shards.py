"""Shards without videos: every class has a direction of its own, shown in a box that masks mark.

Tokens inside the box are ``signal`` times the class's direction plus noise, those outside are
noise; the frame embedding is the mean token. signal=0 leaves nothing to recognise. ``nuisance``
adds a vector per video to the first four channels of all its tokens, which no class has a part in.
Moving masks go 8 cells to the right from frame to frame, round the border; the tokens do not.
Stored views are drawn apart, so that everything else is the same with them and without.
"""

from dataclasses import replace

import numpy as np

from pipeline.manifests import Video
from pipeline.segmenters import Masks
from pipeline.shards.committed import finish
from pipeline.shards.reader import ShardReader
from pipeline.shards.rows import VideoFeatures, ViewFeatures
from pipeline.shards.writer import ShardWriter

CELLS = 128
FINGERPRINT = {
    "decoder": {"name": "none", "version": "1"},
    "encoder": {"name": "synthetic", "sha256": "0"},
    "frames": {"count": 4, "rule": "segment_centres"},
    "view": {"geometry": "full_frame"},
}


def make_shards(
    folder,
    *,
    name="toy",
    classes=(6, 5, 5),
    videos=8,
    frames=4,
    grid=4,
    channels=16,
    signal=3.0,
    nuisance=0.0,
    masks=True,
    moving=False,
    group_size=1,
    seed=0,
    views=(),
    copies=None,
    fingerprint=FINGERPRINT,
):
    """Write a dataset with train, val and test classes, and open it.

    ``copies`` gives videos by id the features of earlier ones; masks and views stay their own.
    """
    rng, of_views = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    fingerprint = {**fingerprint, "views": list(views)} if views else fingerprint
    names = {
        split: [f"{split} {number}" for number in range(count)]
        for split, count in zip(("train", "val", "test"), classes, strict=True)
    }
    everything = [one for some in names.values() for one in some]
    writer = ShardWriter(folder, fingerprint, class_names=everything)
    folder.mkdir(parents=True)
    made = {}
    for shard, (split, class_name) in enumerate((s, c) for s, some in names.items() for c in some):
        direction = rng.normal(size=channels)
        direction[:4] *= nuisance == 0
        direction /= np.linalg.norm(direction)
        rows = []
        for number in range(videos):
            video_id = f"{class_name}/{number:02d}"
            video = Video(
                video_id=video_id,
                path=video_id,
                class_name=class_name,
                split=split,
                group="" if group_size == 1 else f"{class_name} {number // group_size}",
            )
            found = masks and split == "train"
            seen = frames, grid, signal * direction, nuisance, found, moving
            row = _features(rng, video, *seen)
            if split == "train":
                shown = tuple(_view(_features(of_views, video, *seen)) for _ in views)
                row = replace(row, views=shown)
            if copied := (copies or {}).get(video_id):
                row = replace(made[copied], video=video, masks=row.masks, views=row.views)
            made[video_id] = row
            rows.append(row)
        writer.write(shard, rows, [])
    finish(folder, {"name": name, "classes": names}, fingerprint)
    return ShardReader(folder)


def _features(rng, video, frames, grid, signal, nuisance, with_masks, moving):
    tokens = rng.normal(size=(frames, grid, grid, len(signal)))
    if nuisance:
        tokens[..., :4] += nuisance * rng.normal(size=4)
    top, left = rng.integers(0, grid // 2, size=2)
    inside = np.s_[top : top + grid // 2, left : left + grid // 2]
    tokens[:, inside[0], inside[1]] += signal
    flat = tokens.reshape(frames, grid * grid, -1)
    return VideoFeatures(
        video=video,
        tokens=flat.astype(np.float16),
        frame_embedding=flat.mean(axis=1).astype(np.float16),
        masks=_box_masks(frames, grid, inside, moving) if with_masks else None,
        frame_indices=np.arange(frames, dtype=np.int32),
        num_frames_decoded=frames,
        num_frames_expected=frames,
        num_damaged_packets=0,
    )


def _view(row):
    return ViewFeatures(
        tokens=row.tokens,
        frame_embedding=row.frame_embedding,
        masks=row.masks,
        frame_indices=row.frame_indices,
    )


def _box_masks(frames, grid, inside, moving):
    mask = np.zeros((grid, grid), dtype=bool)
    mask[inside] = True
    cells = np.arange(CELLS) * grid // CELLS
    fine = mask[np.ix_(cells, cells)]
    every = [np.roll(fine, 8 * frame * moving, axis=1) for frame in range(frames)]
    return Masks(
        bits=np.packbits(np.reshape(every, (frames, 1, -1)), axis=-1),
        found=np.ones((frames, 1), dtype=bool),
        score=np.ones((frames, 1), dtype=np.float16),
    )
