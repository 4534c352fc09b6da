"""What an extraction has to do: its settings, and the chunks of videos that are left."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.manifests import Video
from pipeline.views import DEFAULT_GEOMETRY, GEOMETRIES

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """Settings of `i2st extract`; every value is plain and picklable."""

    dataset: str
    """Name that the shard index carries."""
    videos: Path
    """Folder that the videos' paths are relative to."""
    out: Path
    """Folder that receives the shards."""
    encoder: str = "open_clip:ViT-B-16-quickgelu/openai"
    """Our choice: the field's CLIP-based methods all use CLIP ViT-B/16."""
    weights: Path | None = None
    """Local weight file of the encoder."""
    grid: int | None = None
    """Side g of the token grid; None is the encoder's own."""
    geometry: str = DEFAULT_GEOMETRY
    """How a frame becomes the encoder's square view; see pipeline.views."""
    segmenter: str = "sam_clip"
    """NAME or NAME:MODEL, see pipeline.segmenters."""
    prompt_mode: str = "nouns"
    """What the segmenter is asked for, see pipeline.prompts."""
    masks: Path | None = None
    """Folder of mask files, for the segmenter `precomputed`."""
    frames: int = 8
    """Stored frames per video. The paper and its peers sample 8."""
    frame_rule: str = "segment_centres"
    decoder: str = "pyav"
    """Exact on every codec measured, which decord is not."""
    decode_children: int = 1
    """Decoding processes per worker; 0 decodes in the worker, where no hang can be killed."""
    decode_timeout_seconds: float = 60.0
    min_decoded_ratio: float = 0.95
    """Below it a file counts as short. Not in the fingerprint: the counts are stored per video."""
    max_pixels: int = 8192 * 8192
    """Largest height x width of a frame; a larger claim is refused before it is decoded."""
    shard_videos: int = 64
    """Videos per shard, and so the most work that a kill can cost."""
    batch_frames: int = 64
    """Frames per encoder call; the last call is padded to it."""
    workers: int = 0
    """Local worker processes; 0 works in this process."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    limit: int | None = None
    """At most this many videos, taken in turn from every class."""
    retry_failed: bool = False
    check_decoder: int = 0
    """Train videos whose frames are compared with the other decoder before anything is written."""

    def __post_init__(self) -> None:
        for name in ("frames", "shard_videos", "batch_frames", "max_pixels"):
            _at_least(1, name, getattr(self, name))
        for name in ("workers", "decode_children", "check_decoder"):
            _at_least(0, name, getattr(self, name))
        if self.limit is not None:
            _at_least(1, "limit", self.limit)
        if self.geometry not in GEOMETRIES:
            raise ConfigError(
                f"unknown geometry {self.geometry!r}; known: {', '.join(GEOMETRIES)}; "
                "pass one of these"
            )
        if not 0.0 <= self.min_decoded_ratio <= 1.0:
            raise ConfigError(
                f"min_decoded_ratio={self.min_decoded_ratio} is no fraction of a video; "
                "it must lie in 0..1; pass e.g. 0.95"
            )
        if not self.decode_timeout_seconds > 0:
            raise ConfigError(
                f"decode_timeout_seconds={self.decode_timeout_seconds} leaves no time to decode; "
                "it must be above 0; pass e.g. 60"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkTask:
    """Videos that become one shard."""

    number: int
    """Number of the shard."""
    videos: tuple[Video, ...]
    """Sorted by video_id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractPlan:
    """What is wanted, what is there, and what is left."""

    num_videos: int
    """Videos asked for, after `limit`."""
    num_done: int
    """Of them, already committed."""
    num_failed: int
    """Of them, recorded as failed and not to be tried again."""
    tasks: tuple[ChunkTask, ...]

    @property
    def num_todo(self) -> int:
        """Videos in the tasks."""
        return sum(len(task.videos) for task in self.tasks)


def plan_extraction(
    config: ExtractConfig,
    videos: Iterable[Video],
    *,
    done: Collection[str] = (),
    failed: Collection[str] = (),
    used_numbers: Collection[int] = (),
) -> ExtractPlan:
    """Divide the videos that are still to do into chunks, one per shard.

    Chunks follow the order of video ids and free shard numbers are used from the lowest, so an
    interrupted run that goes on makes the same shards, byte for byte, as one that was left alone.

    Args:
        config: settings.
        videos: every video of the dataset, in any order.
        done: ids of committed videos.
        failed: ids of videos recorded as failed; tried again under `retry_failed`.
        used_numbers: shard numbers already taken.

    Returns:
        The plan; its tasks are sorted by video id.

    Raises:
        ConfigError: two videos share an id, or there is none.
    """
    wanted = _choose(videos, config.limit)
    skipped = set() if config.retry_failed else set(failed) - set(done)
    todo = [v for v in wanted if v.video_id not in done and v.video_id not in skipped]
    taken = set(used_numbers)
    free_numbers = (number for number in count() if number not in taken)
    tasks = [
        ChunkTask(number=next(free_numbers), videos=tuple(todo[i : i + config.shard_videos]))
        for i in range(0, len(todo), config.shard_videos)
    ]
    return ExtractPlan(
        num_videos=len(wanted),
        num_done=sum(video.video_id in done for video in wanted),
        num_failed=sum(video.video_id in skipped for video in wanted),
        tasks=tuple(tasks),
    )


def spread_over_classes(videos: Iterable[Video]) -> list[Video]:
    """Order videos so that every prefix holds as many classes, then groups, as it can.

    Classes take turns in the order of their names, and inside a class its groups do, so that a
    short run can still draw episodes with disjoint groups.
    """
    by_class = _group_by((video.class_name, video) for video in videos)
    return _take_turns(
        _take_turns(_group_by((v.group or v.video_id, v) for v in members).values())
        for members in by_class.values()
    )


def _choose(videos: Iterable[Video], limit: int | None) -> list[Video]:
    """All videos, or the first ``limit`` in turn over the classes, sorted by video_id."""
    ordered = sorted(videos, key=lambda video: video.video_id)
    for one, next_one in zip(ordered, ordered[1:], strict=False):
        if one.video_id == next_one.video_id:
            raise ConfigError(
                f"video id {one.video_id!r} belongs to {one.path!r} and {next_one.path!r}; "
                "ids must be unique; rename one of the two"
            )
    if not ordered:
        raise ConfigError("0 videos to extract; at least 1 was needed; check the videos' folder")
    if limit is None:
        return ordered
    return sorted(spread_over_classes(ordered)[:limit], key=lambda video: video.video_id)


def _group_by(pairs: Iterable[tuple[Hashable, ItemT]]) -> dict[Any, list[ItemT]]:
    """Values per key, keys sorted, values in the order they came."""
    groups: dict[Any, list[ItemT]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: groups[key] for key in sorted(groups)}


def _take_turns(lists: Iterable[Sequence[ItemT]]) -> list[ItemT]:
    """First items of all lists, then the second ones, and so on."""
    absent = object()
    rounds = chain.from_iterable(zip_longest(*lists, fillvalue=absent))
    return [item for item in rounds if item is not absent]  # type: ignore[misc]


def _at_least(minimum: int, name: str, value: int) -> None:
    if value < minimum:
        raise ConfigError(f"{name}={value} is too small; at least {minimum} was needed; raise it")
