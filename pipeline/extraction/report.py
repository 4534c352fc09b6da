"""What a caller of `extract` sees: how far a run is, and what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.extraction.stages import HAND_STAGES
from pipeline.shards.records import Failure

LEAST_SHARE = 0.001
"""A stage that takes less does nothing, as that of masks without a segmenter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractProgress:
    """How far a run is."""

    num_total: int
    """Videos asked for."""
    num_done: int
    """Of them, committed or in the shards in hand, by this run and those before it."""
    num_failed: int
    num_new: int
    """Videos that this run has gone through."""
    seconds: float
    """Since the first video of this run was begun."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage -> time spent in it: summed over all hands, for ``write`` that of the one writer."""

    @property
    def videos_per_second(self) -> float:
        """Speed of this run."""
        return self.num_new / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest takes at this speed; None before the first video is through."""
        if not self.num_new:
            return None
        return (self.num_total - self.num_done - self.num_failed) / self.videos_per_second

    @property
    def stage_shares(self) -> dict[str, float]:
        """Stage -> share of the hands' time, for ``write`` of the writer's; none that is 0."""
        of_hands = sum(self.stage_seconds.get(stage, 0.0) for stage in HAND_STAGES)
        totals = dict.fromkeys(HAND_STAGES, of_hands) | {"write": self.seconds}
        return {
            stage: seconds / totals[stage]
            for stage, seconds in self.stage_seconds.items()
            if seconds > LEAST_SHARE * totals[stage]
        }

    @property
    def stage_rates(self) -> dict[str, float]:
        """Stage -> videos per second, if nothing else took any time."""
        return {stage: self.videos_per_second / share for stage, share in self.stage_shares.items()}

    @property
    def busiest_stage(self) -> str | None:
        """Stage that sets the speed; None before the first video is through."""
        shares = self.stage_shares
        return max(shares, key=lambda stage: shares[stage], default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractReport:
    """What a run did and what the folder holds now."""

    num_videos: int
    """Videos asked for."""
    num_done: int
    """Of them, committed."""
    num_new: int
    """Of them, committed by this run."""
    num_segmented: int
    """Train videos of this run that a segmenter saw."""
    num_without_masks: int
    """Of them, those for which the segmenter found nothing or had no mask file."""
    failures: tuple[Failure, ...]
    """Every video recorded as failed, by this run and those before it."""
    digest: str | None
    """Digest of the dataset; None where the run was interrupted."""
    signal_number: int | None
    """The signal that stopped the run between two shards; None where it reached its end."""
    seconds: float
