"""Two methods on the same episodes: their difference, and how far each reason could move it.

One difference, four intervals, since "could this be chance?" has four meanings: other episodes of
these videos, other videos of these classes, other classes, other trainings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from i2st_model.comparing.bootstrap import class_half_width
from i2st_model.comparing.clusters import class_scores, gains_of, video_variance
from i2st_model.records.results import Result
from i2st_model.statistics import (
    Z_95,
    Accuracy,
    Interval,
    mean_accuracy,
    paired_difference,
    seed_interval,
)
from pipeline.errors import ConfigError

QUESTIONS = {
    "episodes": "would other episodes of these videos say the same?",
    "videos": "would other videos of these classes?",
    "classes": "would other classes, with their own videos?",
    "seeds": "would other trainings?",
}
"""What each interval answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A paired difference of two methods on one set of episodes, in percentage points."""

    first: Accuracy
    """Mean over training seeds."""
    second: Accuracy
    intervals: dict[str, Interval | None]
    """By the keys of `QUESTIONS`; None where the data cannot tell."""
    why_not: dict[str, str]
    """Why an interval is absent; methods without training have no seeds to speak of."""
    num_classes: int
    num_videos: int
    num_seeds: int
    """Pairs of trainings; 1 where neither side has several."""
    uses_class_names: tuple[bool, bool]
    """Whether either side knows the names of the classes it is tested on."""
    one_training: tuple[bool, bool] = (False, False)
    """Whether either side is a single training beside several: its luck is not in ``seeds``."""
    seen: tuple[str, str] = ("", "")
    """What of the videos either side saw, in words: frames of a clip, and whose encoder."""

    @property
    def difference(self) -> float:
        """First minus second, in percentage points."""
        return self.first.mean - self.second.mean

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "first": {"mean": self.first.mean, "half_width": self.first.half_width},
            "second": {"mean": self.second.mean, "half_width": self.second.half_width},
            "difference": self.difference,
            "intervals": {
                name: None if one is None else [one.low, one.high]
                for name, one in self.intervals.items()
            },
            "why_not": self.why_not,
            "num_classes": self.num_classes,
            "num_videos": self.num_videos,
            "num_seeds": self.num_seeds,
            "uses_class_names": list(self.uses_class_names),
            "one_training": list(self.one_training),
            "seen": list(self.seen),
        }


def compare(first: Sequence[Result], second: Sequence[Result]) -> Comparison:
    """Compare two methods on one set of episodes.

    Args:
        first: results of one method, one per training seed.
        second: of the other, in the same order of seeds; or a single one on either side, which is
            paired with all.

    Returns:
        Accuracies, difference and intervals.

    Raises:
        ConfigError: the episodes differ, or the numbers of seeds cannot be paired.
    """
    require_same_episodes([*first, *second])
    require_pairs(len(first), len(second))
    gains, episodes = gains_of(first, second), first[0].episodes
    per_episode = [np.mean([one.per_episode for one in side], axis=0) for side in (first, second)]
    over_episodes = paired_difference(per_episode[0], per_episode[1])
    scores, by_chance = class_scores(gains)
    halves = {"episodes": over_episodes.half_width, "videos": None, "classes": None}
    # Other videos bring other episodes, other classes other videos.
    least = over_episodes.half_width
    variance = video_variance(gains)
    if variance is not None:
        halves["videos"] = least = max(100 * Z_95 * variance**0.5, least)
    half = class_half_width(scores, by_chance)
    if half is not None:
        halves["classes"] = max(100 * half / gains.own.size, least)
    intervals = {name: _around(over_episodes.mean, half) for name, half in halves.items()}
    intervals["seeds"] = seed_interval(_per_seed(first, second))
    return Comparison(
        first=mean_accuracy(per_episode[0]),
        second=mean_accuracy(per_episode[1]),
        intervals=intervals,
        why_not=_why_not(intervals, trained=any(one.made_by.run for one in [*first, *second])),
        num_classes=len(scores),
        num_videos=len(episodes.video_ids),
        num_seeds=max(len(first), len(second)),
        uses_class_names=(_knows_names(first), _knows_names(second)),
        one_training=(_is_one_of(first, second), _is_one_of(second, first)),
        seen=(_seen(first), _seen(second)),
    )


def require_pairs(first: int, second: int) -> None:
    """Refuse numbers of training seeds that cannot be paired.

    Args:
        first: results of one side.
        second: of the other.

    Raises:
        ConfigError: both sides have several, and not equally many.
    """
    if first != second and 1 not in (first, second):
        raise ConfigError(
            f"{first} runs beside {second}; as many on both sides, or one on either, were needed; "
            "leave some out"
        )


def require_same_episodes(results: Sequence[Result]) -> None:
    """Refuse results on different episodes, saying how they differ.

    Args:
        results: at least one.

    Raises:
        ConfigError: two of them are on different episodes.
    """
    mine = results[0].episodes
    for other in results[1:]:
        if other.episodes is mine or mine.same_episodes(other.episodes):
            continue
        ours, theirs = _shape_words(results[0]), _shape_words(other)
        how = f"{ours}, and {theirs}" if ours != theirs else f"{ours}, but of other clips"
        raise ConfigError(
            f"the results are on different episodes ({how}); the same were needed for pairs; "
            "evaluate both with the same --episode-file"
        )


def _shape_words(result: Result) -> str:
    episodes = result.episodes
    return (
        f"{episodes.num_episodes} {episodes.way}-way {episodes.shot}-shot of {episodes.dataset} "
        f"{episodes.split} with {episodes.queries} queries per class, seed {episodes.seed}"
    )


def _knows_names(side: Sequence[Result]) -> bool:
    return any(one.made_by.uses_class_names for one in side)


def _is_one_of(side: Sequence[Result], other: Sequence[Result]) -> bool:
    return len(side) == 1 < len(other) and side[0].made_by.run is not None


def _seen(side: Sequence[Result]) -> str:
    return " or ".join(sorted({one.made_by.seen() for one in side}))


def _around(mean: float, half: float | None) -> Interval | None:
    return None if half is None else Interval(mean=mean, low=mean - half, high=mean + half)


def _per_seed(first: Sequence[Result], second: Sequence[Result]) -> list[float]:
    pairs = max(len(first), len(second))
    ours, theirs = list(first) * (pairs // len(first)), list(second) * (pairs // len(second))
    return [float(a.correct.mean() - b.correct.mean()) for a, b in zip(ours, theirs, strict=True)]


def _why_not(intervals: Mapping[str, Interval | None], *, trained: bool) -> dict[str, str]:
    absent = [name for name, one in intervals.items() if one is None]
    return {name: _WHY_NOT[name] for name in absent if name != "seeds" or trained}


_WHY_NOT = {
    "videos": "a class has no more videos than an episode takes",
    "classes": "three classes or fewer say nothing about others",
    "seeds": "one training tells nothing of others; pass runs with other seeds, A,B,C",
}
