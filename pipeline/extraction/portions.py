"""Portions: the unit of extraction work, a few videos of one shard, and what becomes of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.errors import ResourceError, VideoError
from pipeline.extraction.made_by import MadeBy
from pipeline.extraction.plan import PlannedShard
from pipeline.extraction.rows import failure_of
from pipeline.manifests import Video
from pipeline.shards.filling import StoredRow
from pipeline.shards.records import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """Videos of one shard that one hand works on at once."""

    shard_number: int
    videos: tuple[Video, ...]


INTRODUCTION = Portion(shard_number=-1, videos=())
"""Asks a worker only what its models are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PortionResult:
    """What became of a portion's videos."""

    shard_number: int
    rows: tuple[StoredRow, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage -> time of the hand, with the time it waited for its turn."""
    made_by: MadeBy | None = None
    """None where no worker came to an end with it."""

    @property
    def num_videos(self) -> int:
        """Videos of the portion."""
        return len(self.rows) + len(self.failures)


def portions_of(shard: PlannedShard, num_videos: int) -> Iterator[Portion]:
    """Divide a shard into portions of ``num_videos``, in the order of its videos."""
    for first in range(0, len(shard.videos), num_videos):
        yield Portion(shard_number=shard.number, videos=shard.videos[first : first + num_videos])


def split_portion(portion: Portion) -> list[Portion]:
    """One portion per video."""
    return [Portion(shard_number=portion.shard_number, videos=(one,)) for one in portion.videos]


def give_up_portion(portion: Portion) -> PortionResult:
    """Result of a video that ends every worker that takes it.

    Args:
        portion: of one video.

    Returns:
        A failure with reason ``poison``.

    Raises:
        ResourceError: it is an introduction: workers end by themselves.
    """
    if not portion.videos:
        raise ResourceError(
            "workers died before their first video, most likely for memory; room for the models of "
            "every worker was needed; free memory, or lower --workers"
        )
    failures = tuple(
        failure_of(
            video,
            VideoError(
                "poison",
                f"{video.path} ended every worker process that took it, alone; replace the file",
            ),
        )
        for video in portion.videos
    )
    return PortionResult(shard_number=portion.shard_number, failures=failures)
