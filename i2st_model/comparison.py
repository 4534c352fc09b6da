"""Two methods on the same episodes: their difference, and how far each reason could move it.

One difference, four intervals, since "could this be chance?" has four meanings: other episodes of
these videos, other videos of these classes (other sources of videos, where they are known), other
classes, other trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from i2st_model.comparing.intervals import OF_RUNS, difference_intervals
from i2st_model.comparing.pairing import require_pairs, require_same_episodes
from i2st_model.records.results import Result
from i2st_model.statistics import Accuracy, Interval, mean_accuracy

QUESTIONS = {
    "episodes": "would other episodes of these videos say the same?",
    "videos": "would other videos of these classes? Each counts as a source of its own.",
    "classes": "would other classes, with their own videos?",
    "seeds": "would other trainings?",
}
"""What each interval answers."""
OF_SOURCES = "would videos of these classes from other sources?"
"""What that over videos answers where clips share sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A paired difference of two methods on one set of episodes, in percentage points."""

    first: Accuracy
    """Mean over training seeds."""
    second: Accuracy
    intervals: dict[str, Interval | None]
    """By the keys of `QUESTIONS`; None where the data cannot tell, and where nothing varies: an
    interval of no length would look certain of what nobody knows."""
    why_not: dict[str, str]
    """Why an interval is absent; methods without training have no seeds to speak of."""
    num_classes: int
    num_videos: int
    num_sources: int
    """Of the videos; as many as videos where each has its own."""
    num_seeds: int
    """Pairs of trainings; 1 where neither side has several."""
    uses_class_names: tuple[bool, bool]
    """Whether either side knows the names of the classes it is tested on."""
    one_training: tuple[bool, bool] = (False, False)
    """Whether either side is a single training beside several: its luck is not in ``seeds``."""
    methods: tuple[str, str] = ("", "")
    """Of either side, with their options."""
    runs: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Training runs of either side, in words; none for methods without training."""
    seen: tuple[str, str] = ("", "")
    """What of the videos either side saw, in words: frames of a clip, and whose encoder."""

    @property
    def difference(self) -> float:
        """First minus second, in percentage points."""
        return self.first.mean - self.second.mean

    def over(self, name: str) -> str:
        """What an interval of `QUESTIONS` is over, in words: clips of one source count together."""
        return "sources" if name == "videos" and self.num_sources < self.num_videos else name

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "first": {"mean": self.first.mean, "half_width": self.first.half_width},
            "second": {"mean": self.second.mean, "half_width": self.second.half_width},
            "difference": self.difference,
            "over": {name: self.over(name) for name in self.intervals},
            "intervals": {
                name: None if one is None else [one.low, one.high]
                for name, one in self.intervals.items()
            },
            "why_not": self.why_not,
            "num_classes": self.num_classes,
            "num_videos": self.num_videos,
            "num_sources": self.num_sources,
            "num_seeds": self.num_seeds,
            "uses_class_names": list(self.uses_class_names),
            "one_training": list(self.one_training),
            "methods": list(self.methods),
            "runs": [list(side) for side in self.runs],
            "seen": list(self.seen),
        }


def compare(
    first: Sequence[Result], second: Sequence[Result], *, more_seeds: str = OF_RUNS
) -> Comparison:
    """Compare two methods on one set of episodes.

    Args:
        first: results of one method, one per training seed.
        second: of the other, in the same order of seeds; or a single one on either side, which is
            paired with all.
        more_seeds: what to do, in words, where one training tells nothing of others.

    Returns:
        Accuracies, difference and intervals.

    Raises:
        ConfigError: the episodes differ, or the numbers of seeds cannot be paired.
    """
    require_same_episodes([*first, *second])
    require_pairs(len(first), len(second))
    per_episode = [np.mean([one.per_episode for one in side], axis=0) for side in (first, second)]
    found = difference_intervals(first, second, more_seeds=more_seeds)
    return Comparison(
        first=mean_accuracy(per_episode[0]),
        second=mean_accuracy(per_episode[1]),
        intervals=found.intervals,
        why_not=found.why_not,
        num_classes=len(np.unique(first[0].episodes.classes)),
        num_videos=found.num_videos,
        num_sources=found.num_sources,
        num_seeds=max(len(first), len(second)),
        uses_class_names=(_knows_names(first), _knows_names(second)),
        methods=(_methods(first), _methods(second)),
        runs=(_runs(first), _runs(second)),
        one_training=(_is_one_of(first, second), _is_one_of(second, first)),
        seen=(_seen(first), _seen(second)),
    )


def _knows_names(side: Sequence[Result]) -> bool:
    return any(one.made_by.uses_class_names for one in side)


def _is_one_of(side: Sequence[Result], other: Sequence[Result]) -> bool:
    return len(side) == 1 < len(other) and side[0].made_by.run is not None


def _methods(side: Sequence[Result]) -> str:
    return " or ".join(sorted({one.made_by.method for one in side}))


def _runs(side: Sequence[Result]) -> tuple[str, ...]:
    return tuple(one.made_by.run_words() for one in side if one.made_by.run is not None)


def _seen(side: Sequence[Result]) -> str:
    return " or ".join(sorted({one.made_by.seen() for one in side}))
