"""ShardAssembler: rows of a shard from any worker -> whole shards, written beside the work."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

from pipeline.extraction.plan import PlannedShard
from pipeline.extraction.portions import PortionResult
from pipeline.shards.filling import StoredRow
from pipeline.shards.records import Failure
from pipeline.shards.writer import ShardWriter


@dataclass(slots=True)
class _OpenShard:
    """A shard some of whose videos are done."""

    num_left: int
    rows: list[StoredRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class ShardAssembler:
    """Context manager that writes each shard once its last video is there.

    One shard at a time is written, in a thread; while a second one waits for it, so does the
    caller. So memory holds the shards that have a portion in hand and two more, however many
    videos there are.

    Args:
        writer: of the folder.
        shards: those that are to come.
    """

    def __init__(self, writer: ShardWriter, shards: Sequence[PlannedShard]) -> None:
        self.num_written = 0
        """Videos that are committed."""
        self.num_segmented = 0
        """Of them, train videos that a segmenter saw."""
        self.num_without_masks = 0
        """Of them, train videos in which the segmenter found nothing, or that had no mask file."""
        self.failures: list[Failure] = []
        """Failures that are recorded."""
        self.write_seconds = 0.0
        self._writer = writer
        self._num_videos = {shard.number: len(shard.videos) for shard in shards}
        self._open: dict[int, _OpenShard] = {}
        self._thread = ThreadPoolExecutor(1, "i2st-write")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "ShardAssembler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A write under way comes to its end: the folder's lock is given back after this.
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def num_videos_open(self) -> int:
        """Videos of begun shards that are not there yet."""
        return sum(shard.num_left for shard in self._open.values())

    def begin(self, number: int) -> None:
        """Note that the first portion of a shard is given to a hand."""
        self._open[number] = _OpenShard(self._num_videos[number])

    def add(self, result: PortionResult) -> None:
        """Take a portion's rows and failures.

        Args:
            result: of a shard that was begun.

        Raises:
            ResourceError: the disk is full; shards written before stay.
            ConfigError: the folder cannot be written.
        """
        shard = self._open[result.shard_number]
        shard.rows += result.rows
        shard.failures += result.failures
        shard.num_left -= result.num_videos
        if not shard.num_left:
            self.finish()
            del self._open[result.shard_number]
            self._writing = self._thread.submit(self._write, result.shard_number, shard)

    def finish(self) -> None:
        """Wait for the shard that is being written; raises what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, number: int, shard: _OpenShard) -> None:
        begin = time.monotonic()
        self._writer.write(number, shard.rows, shard.failures)
        self.write_seconds += time.monotonic() - begin
        self.num_written += len(shard.rows)
        masks = [row.masks for row in shard.rows if row.masks is not None]
        self.num_segmented += len(masks)
        self.num_without_masks += sum(not one.found.any() for one in masks)
        self.failures += shard.failures
