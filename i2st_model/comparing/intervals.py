"""The four intervals of a difference, and why one of them is absent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2st_model.comparing.bootstrap import class_half_width
from i2st_model.comparing.clusters import Gains, class_scores, gains_of
from i2st_model.comparing.sources import classes_untold, degrees_of_freedom, source_variance
from i2st_model.records.results import Result
from i2st_model.statistics import Interval, mean_accuracy, seed_interval, t_quantile

OF_RUNS = "pass runs with other seeds, A,B,C"
"""How to make several trainings a side of `i2st compare`."""
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


def difference_intervals(
    first: Sequence[Result], second: Sequence[Result], *, more_seeds: str = OF_RUNS
) -> Intervals:
    """Find how far other episodes, videos, classes and trainings could move a difference.

    Args:
        first: results of one method, one per training seed.
        second: of the other on the same episodes, as many or one.
        more_seeds: what to do where one training tells nothing of others.

    Returns:
        Intervals around the mean difference.
    """
    gains = gains_of(first, second)
    over_episodes = mean_accuracy(gains.own.mean(axis=(1, 2)))
    halves = _half_widths(gains, over_episodes.half_width)
    found = {name: _around(over_episodes.mean, half) for name, half in halves.items()}
    found["seeds"] = seed_interval(_per_seed(first, second))
    why_not = {}
    if found["videos"] is None:
        why_not["videos"] = _why_untold(gains)
    if found["classes"] is None:
        why_not["classes"] = "three classes or fewer say nothing about others"
    if found["seeds"] is None and any(one.made_by.run for one in [*first, *second]):
        why_not["seeds"] = f"one training tells nothing of others; {more_seeds}"
    for name, one in found.items():
        if one is not None and one.half_width < FLAT:
            found[name], why_not[name] = None, _why_flat(gains, name)
    return Intervals(
        intervals=found,
        why_not=why_not,
        num_videos=len(gains.sources),
        num_sources=len(np.unique(gains.sources)),
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


def _why_untold(gains: Gains) -> str:
    """Name the first class whose sources cannot be told apart, and say how that is."""
    episodes, untold = gains.episodes, classes_untold(gains)
    of_class = gains.sources[episodes.video_class == untold[0]]
    videos, sources = len(of_class), len(np.unique(of_class))
    name = repr(episodes.class_names[untold[0]])
    name += f" (and {len(untold) - 1} more)" if len(untold) > 1 else ""
    if sources == 1:
        return f"all {videos} videos of class {name} are of one source"
    if sources == videos:
        return f"class {name} has no more videos than an episode takes, {videos}"
    return f"an episode takes clips of too many of the {sources} sources of class {name}"
