"""Random features as shards and as episodes, and two ways of work timed in turn."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from i2st_model.drawing.class_videos import group_videos
from i2st_model.episodes import EpisodeSampler
from i2st_model.records.episode_sets import EpisodeSet
from pipeline.manifests import Video
from pipeline.shards.committed import finish
from pipeline.shards.writer import ShardWriter, VideoFeatures

NUM_VIDEOS, NUM_CLASSES, FRAMES, EMBEDDING = 1292, 10, 8, 512
"""Of HMDB51's test split, seen by CLIP ViT-B/16."""
NUM_TRAIN = 64
WAY, SHOT = 5, 5
SHARD_VIDEOS = 64


def write_shards(folder: Path) -> None:
    """Write random features of NUM_VIDEOS test videos, and of a few train videos."""
    names = {"train": ["train"], "test": [f"class {n}" for n in range(NUM_CLASSES)]}
    folder.mkdir(parents=True)
    everything = [name for some in names.values() for name in some]
    writer = ShardWriter(folder, {}, class_names=everything)
    rng = np.random.default_rng(0)
    videos = [("train", "train", number) for number in range(NUM_TRAIN)]
    videos += [("test", f"class {n % NUM_CLASSES}", n) for n in range(NUM_VIDEOS)]
    for first in range(0, len(videos), SHARD_VIDEOS):
        some = videos[first : first + SHARD_VIDEOS]
        writer.write(first // SHARD_VIDEOS, [random_video(rng, *video) for video in some], [])
    finish(folder, {"name": "random", "classes": names}, {})


def random_video(
    rng: np.random.Generator,
    split: str,
    class_name: str,
    number: int,
    *,
    grid: int = 1,
    channels: int = 8,
) -> VideoFeatures:
    """A video of FRAMES frames without masks, its features drawn at random."""
    name = f"{class_name}/{number:04d}"
    return VideoFeatures(
        video=Video(video_id=name, path=name, class_name=class_name, split=split),
        tokens=rng.standard_normal((FRAMES, grid**2, channels)).astype(np.float16),
        frame_embedding=rng.standard_normal((FRAMES, EMBEDDING)).astype(np.float16),
        masks=None,
        frame_indices=np.arange(FRAMES, dtype=np.int32),
        num_frames_decoded=FRAMES,
        num_frames_expected=FRAMES,
        num_damaged_packets=0,
    )


def drawn(videos: int, count: int, *, shot: int = SHOT) -> EpisodeSet:
    """Episodes with one query per class among some videos in NUM_CLASSES classes."""
    rows = np.arange(videos)
    names = tuple(str(number) for number in range(NUM_CLASSES))
    classes = group_videos(rows % NUM_CLASSES, [""] * videos, range(NUM_CLASSES), names)
    batch = EpisodeSampler(classes, way=WAY, shot=shot, queries=1).batch(0, count)
    return EpisodeSet(
        dataset="random",
        digest="",
        split="test",
        seed=0,
        disjoint_groups=False,
        dropped_classes=(),
        class_names=names,
        video_ids=tuple(f"{row:04d}" for row in rows),
        video_class=rows % NUM_CLASSES,
        support=batch.support,
        query=batch.query,
    )


def medians_in_turn(
    first: Callable[[], Any], second: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """Median CPU seconds of two functions called A B A B, after one call of each."""
    first(), second()
    pairs = [(cpu_seconds(first), cpu_seconds(second)) for _ in range(rounds)]
    one, other = zip(*pairs, strict=True)
    return statistics.median(one), statistics.median(other)


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process that a call takes."""
    start = time.process_time()
    work()
    return time.process_time() - start
