"""Small datasets for the tests of shards, and processes that die on purpose."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.manifests import Video
from pipeline.segmenters import Masks
from pipeline.shards.committed import committed, finish
from pipeline.shards.files import sha256_of
from pipeline.shards.filling import StoredRow
from pipeline.shards.index import INDEX_NAME, ShardIndex
from pipeline.shards.jpegs import encode_frames
from pipeline.shards.lock import FolderLock
from pipeline.shards.records import Failure, ShardRecord, shard_name
from pipeline.shards.rows import VideoFeatures, VideoFrames, ViewFeatures
from pipeline.shards.writer import ShardWriter

FINGERPRINT = {"manifest": "5e1f", "frames": 2, "encoder": {"name": "toy", "grid": 2}}
DATASET = {"name": "toy", "classes": {"train": ["climb", "wave"], "val": ["sit"], "test": ["run"]}}
CLASS_NAMES = ["climb", "wave", "sit", "run"]
SPLIT_OF = {"climb": "train", "wave": "train", "sit": "val", "run": "test"}


def features(number: int, *, class_name: str = "climb", with_masks: bool = True) -> VideoFeatures:
    """F = 2, L = 4, C = 6, E = 5, S = 4; the values follow from the number."""
    rng = np.random.default_rng(number)
    split = SPLIT_OF[class_name]
    masks = Masks(
        bits=rng.integers(0, 256, (2, 4, 2048), dtype=np.uint8),
        found=rng.random((2, 4)) > 0.3,
        score=rng.random((2, 4)).astype(np.float16),
    )
    video_id = f"{class_name}/clip {number:03d}"
    return VideoFeatures(
        video=Video(
            video_id=video_id,
            path=f"{video_id}.avi",
            class_name=class_name,
            split=split,
            group="" if number % 3 == 0 else f"source {number % 3}",
        ),
        tokens=rng.standard_normal((2, 4, 6)).astype(np.float16),
        frame_embedding=rng.standard_normal((2, 5)).astype(np.float16),
        masks=masks if with_masks and split == "train" else None,
        frame_indices=np.array([number, number + 7], np.int32),
        num_frames_decoded=40 + number,
        num_frames_expected=48 + number,
        num_damaged_packets=number % 2,
    )


def all_features(count: int = 12, *, with_masks: bool = True) -> list[VideoFeatures]:
    return [
        features(number, class_name=CLASS_NAMES[number % 4], with_masks=with_masks)
        for number in range(count)
    ]


VIEWS = {**FINGERPRINT, "views": ["flip", "early", "late"]}
FRAMES = {**FINGERPRINT, "store": {"kind": "frames", "frame_side": 24}}


def with_views(row: VideoFeatures, count: int = 3) -> VideoFeatures:
    """Give a train row views whose values follow from its tokens; leave any other alone."""
    if row.video.split != "train":
        return row
    rng = np.random.default_rng(np.frombuffer(row.tokens.tobytes(), np.uint8))
    views = tuple(
        ViewFeatures(
            tokens=rng.standard_normal(row.tokens.shape).astype(np.float16),
            frame_embedding=rng.standard_normal(row.frame_embedding.shape).astype(np.float16),
            masks=row.masks and replace(row.masks, bits=row.masks.bits ^ np.uint8(number + 1)),
            frame_indices=row.frame_indices + np.int32(number),
        )
        for number in range(count)
    )
    return replace(row, views=views)


def frames_row(number: int, *, class_name: str = "climb", with_masks: bool = True) -> VideoFrames:
    """The video of `features` as 2 pictures of 24 x 30 or 24 x 40 pixels."""
    plain = features(number, class_name=class_name, with_masks=with_masks)
    width = 30 + 10 * (number % 2)
    pictures = np.random.default_rng(number).integers(0, 256, (2, 24, width, 3), dtype=np.uint8)
    jpegs, size = encode_frames(pictures, 24)
    return VideoFrames(
        video=plain.video,
        masks=plain.masks,
        frame_indices=plain.frame_indices,
        num_frames_decoded=plain.num_frames_decoded,
        num_frames_expected=plain.num_frames_expected,
        num_damaged_packets=plain.num_damaged_packets,
        jpegs=jpegs,
        frame_size=size,
    )


def failure(video_id: str, reason: str = "short") -> Failure:
    return Failure(video_id, "train", "climb", reason, f"{video_id} decodes 47 of 93 frames")


def extract(
    folder: Path,
    rows: Sequence[StoredRow],
    *,
    shard_videos: int = 5,
    failures: Sequence[Failure] = (),
    fingerprint: Mapping[str, Any] = FINGERPRINT,
) -> ShardIndex:
    """What `i2st extract` does, without videos: resume, write what is left, finish."""
    with FolderLock(folder):
        state = committed(folder, fingerprint)
        writer = ShardWriter(folder, fingerprint, class_names=CLASS_NAMES)
        todo = sorted(
            (row for row in rows if row.video.video_id not in state.videos),
            key=lambda row: row.video.video_id,
        )
        numbers = (n for n in range(10_000) if n not in state.used_numbers)
        for first in range(0, len(todo), shard_videos):
            chunk = todo[first : first + shard_videos]
            writer.write(next(numbers), chunk, failures if first == 0 else [])
        return finish(folder, DATASET, fingerprint)


def reseal(folder: Path, number: int = 0) -> None:
    """Make index.json agree with a shard file that was changed: what a forger would do."""
    index = ShardIndex.load(folder)
    with (folder / shard_name(number)).open("rb") as file:
        sha256, size = sha256_of(file.fileno()), os.fstat(file.fileno()).st_size
    shards = tuple(
        shard._replace(sha256=sha256, size_bytes=size) if shard.number == number else shard
        for shard in index.shards
    )
    write_index(folder, replace(index, shards=shards))


def write_index(folder: Path, index: ShardIndex) -> None:
    (folder / INDEX_NAME).write_bytes(index.to_bytes())


def record_of(folder: Path, number: int = 0) -> ShardRecord:
    return next(s for s in ShardIndex.load(folder).shards if s.number == number)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, byte for byte."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


def start(work: Callable[[], object], environment: dict[str, str] | None = None) -> int:
    """Run work in a forked child, which exits 0, or 99 after an exception; return its PID."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.environ.update(environment or {})
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def end_of(pid: int) -> int:
    """Wait for a child; its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


KILLED = -signal.SIGKILL
