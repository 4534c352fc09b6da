"""The four intervals of a difference, and why one of them is absent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2st_model.comparing.bootstrap import class_half_width
from i2st_model.comparing.clusters import Gains, class_scores, gains_of
from i2st_model.comparing.sources import degrees_of_freedom, source_variance
from i2st_model.records.results import Result
from i2st_model.statistics import Interval, mean_accuracy, seed_interval, t_quantile

FLAT = 1e-9
"""Points; half-widths below it are rounding of values that are all the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """Intervals of one difference by what they are over; see `i2st_model.comparison.QUESTIONS`."""

    intervals: dict[str, Interval | None]
    why_not: dict[str, str]
    """Why one is absent."""
    num_videos: int
    """Of the side that knows their sources: shards may hold videos that no episode drew."""
    num_sources: int
    """Of the videos; as many as videos where each has its own."""


def difference_intervals(first: Sequence[Result], second: Sequence[Result]) -> Intervals:
    """Find how far other episodes, videos, classes and trainings could move a difference.

    Args:
        first: results of one method, one per training seed.
        second: of the other on the same episodes, as many or one.

    Returns:
        Intervals around the mean difference.
    """
    gains = gains_of(first, second)
    over_episodes = mean_accuracy(gains.own.mean(axis=(1, 2)))
    halves = _half_widths(gains, over_episodes.half_width)
    found = {name: _around(over_episodes.mean, half) for name, half in halves.items()}
    found["seeds"] = seed_interval(_per_seed(first, second))
    why_not = {name: _WHY_NOT[name] for name, one in found.items() if one is None}
    num_videos, num_sources = len(gains.sources), len(np.unique(gains.sources))
    if "videos" in why_not and num_sources < num_videos:
        why_not["videos"] = _NO_SOURCES
    if not any(one.made_by.run for one in [*first, *second]):
        why_not.pop("seeds", None)
    for name, one in found.items():
        if one is not None and one.half_width < FLAT:
            found[name], why_not[name] = None, _why_flat(gains, name)
    return Intervals(
        intervals=found, why_not=why_not, num_videos=num_videos, num_sources=num_sources
    )


def _half_widths(gains: Gains, over_episodes: float) -> dict[str, float | None]:
    """None where the data cannot tell. Other videos bring other episodes, classes other videos."""
    halves: dict[str, float | None] = {"episodes": over_episodes, "videos": None, "classes": None}
    least = over_episodes
    variance = source_variance(gains)
    if variance is not None:
        quantile = t_quantile(degrees_of_freedom(gains))
        halves["videos"] = least = max(100 * quantile * variance**0.5, least)
    half = class_half_width(*class_scores(gains), gains.returned)
    if half is not None:
        halves["classes"] = max(100 * half / gains.own.size, least)
    return halves


def _around(mean: float, half: float | None) -> Interval | None:
    return None if half is None else Interval(mean=mean, low=mean - half, high=mean + half)


def _per_seed(first: Sequence[Result], second: Sequence[Result]) -> list[float]:
    pairs = max(len(first), len(second))
    ours, theirs = list(first) * (pairs // len(first)), list(second) * (pairs // len(second))
    return [float(a.correct.mean() - b.correct.mean()) for a, b in zip(ours, theirs, strict=True)]


def _why_flat(gains: Gains, name: str) -> str:
    if not gains.own.any():
        return "no query differs, both sides are right on the same ones"
    what = "pair of trainings" if name == "seeds" else "episode"
    return f"every {what} differs by the same"


_NO_SOURCES = "an episode takes clips of too many of a class's sources to tell them apart"
_WHY_NOT = {
    "videos": "a class has no more videos than an episode takes",
    "classes": "three classes or fewer say nothing about others",
    "seeds": "one training tells nothing of others; pass runs with other seeds, A,B,C",
}
