"""What a caller of `extract` sees: how far a run is, and what it did."""

from dataclasses import dataclass

from pipeline.shards.records import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractProgress:
    """How far a run is."""

    num_total: int
    """Videos asked for."""
    num_done: int
    """Of them, committed or in the shard in hand, by this run and those before it."""
    num_failed: int
    num_new: int
    """Videos that this run has gone through."""
    seconds: float
    """Since the first video of this run was begun."""

    @property
    def videos_per_second(self) -> float:
        """Speed of this run."""
        return self.num_new / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractReport:
    """What a run did and what the folder holds now."""

    num_videos: int
    """Videos asked for."""
    num_done: int
    """Of them, committed."""
    num_new: int
    """Of them, committed by this run."""
    num_without_masks: int
    """Train videos of this run for which the segmenter found nothing or had no mask file."""
    failures: tuple[Failure, ...]
    """Every video recorded as failed, by this run and those before it."""
    digest: str | None
    """Digest of the dataset; None where the run was interrupted."""
    signal_number: int | None
    """The signal that stopped the run between two shards; None where it reached its end."""
    seconds: float
