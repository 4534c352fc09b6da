"""What an extraction has to do: the shards that are left."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, zip_longest
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.extraction.config import ExtractConfig
from pipeline.manifests import Video

__all__ = ["ExtractConfig", "ExtractPlan", "PlannedShard", "plan_extraction", "spread_over_classes"]

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """Videos that become one shard."""

    number: int
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
    shards: tuple[PlannedShard, ...]

    @property
    def num_todo(self) -> int:
        """Videos that are left."""
        return sum(len(shard.videos) for shard in self.shards)


def plan_extraction(
    config: ExtractConfig,
    videos: Iterable[Video],
    *,
    done: Collection[str] = (),
    failed: Collection[str] = (),
    used_numbers: Collection[int] = (),
) -> ExtractPlan:
    """Divide the videos that are still to do into shards.

    Shards follow the order of video ids and free shard numbers are used from the lowest, so an
    interrupted run that goes on makes the same shards, byte for byte, as one that was left alone.

    Args:
        config: settings.
        videos: every video of the dataset, in any order.
        done: ids of committed videos.
        failed: ids of videos recorded as failed; tried again under `retry_failed`.
        used_numbers: shard numbers already taken.

    Returns:
        The plan; its shards are sorted by video id.

    Raises:
        ConfigError: two videos share an id, or there is none.
    """
    wanted = _choose(videos, config.limit)
    skipped = set() if config.retry_failed else set(failed) - set(done)
    todo = [v for v in wanted if v.video_id not in done and v.video_id not in skipped]
    taken = set(used_numbers)
    free_numbers = (number for number in count() if number not in taken)
    shards = [
        PlannedShard(number=next(free_numbers), videos=tuple(todo[i : i + config.shard_videos]))
        for i in range(0, len(todo), config.shard_videos)
    ]
    return ExtractPlan(
        num_videos=len(wanted),
        num_done=sum(video.video_id in done for video in wanted),
        num_failed=sum(video.video_id in skipped for video in wanted),
        shards=tuple(shards),
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
