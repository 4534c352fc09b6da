"""What each class adds to a paired difference of two methods.

Shape letters: E episodes, N way, q queries per class, C classes, V videos.

Episodes repeat classes and videos, so they are not independent: 10,000 of them say little about
classes that are not among the ten they draw. A mean over episodes is a U-statistic of classes and
videos; here are its first-order terms (Hoeffding 1948), which sum up all that one class does. It
asks queries, and it draws the queries of others to itself; answers are dyadic data (Aronow, Samii
and Assenova 2015, arXiv:1312.3398). `i2st_model.comparing.sources` has the terms of videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Gains:
    """What one method gains on another, query by query; means over training seeds."""

    episodes: EpisodeSet
    own: Floats
    """(E, N, q) in [-1, 1]: first right minus second right."""
    drawn: Floats
    """(E, N): queries of other classes that the second loses to this class, minus those that the
    first loses; see `lost_to`."""
    returned: float
    """Share of the wrong answers that `lost_to` counts; 1 at 2-way."""
    sources: NDArray[np.int64]
    """(V,) source number of each video."""

    @property
    def mean(self) -> float:
        """Mean over queries, in [-1, 1]."""
        return float(self.own.mean())


def gains_of(first: Sequence[Result], second: Sequence[Result]) -> Gains:
    """Compare two methods query by query.

    Args:
        first: results of one method, one per training seed, all on the same episodes.
        second: of the other method on these episodes.

    Returns:
        Means over the seeds of each.
    """
    right = [np.mean([r.correct for r in side], axis=0, dtype=float) for side in (first, second)]
    lost = [np.mean([lost_to(r) for r in side], axis=0) for side in (first, second)]
    wrong = sum(float((1 - one).sum()) for one in right)
    # Files from before sources were kept do not know them.
    known = next((r for r in (*first, *second) if r.video_source is not None), first[0])
    return Gains(
        episodes=known.episodes,
        own=right[0] - right[1],
        drawn=lost[1] - lost[0],
        returned=float(np.sum(lost)) / wrong if wrong else 1.0,
        sources=known.sources,
    )


def lost_to(result: Result) -> Floats:
    """Count the right answers that would be there if a class were not.

    A wrong answer is not always the fault of the class that was named: without it another wrong
    one might have been. By Luce's choice axiom the share of right ones among the rest stays as it
    is; it is taken from all queries of the true class.

    Args:
        result: what a method predicted.

    Returns:
        (E, N) expected number of queries of other classes.
    """
    episodes, way = result.episodes, result.episodes.way
    right_EN = result.correct.mean(axis=2)
    right_EN = class_means(episodes.classes, right_EN)
    rest_EN = right_EN + (1 - right_EN) * (way - 2) / (way - 1)
    # Of two classes the other one is left alone, and right, even where it never was.
    instead_EN = np.where(rest_EN > 0, right_EN / np.where(rest_EN > 0, rest_EN, 1), 1.0)
    wrong = ~result.correct
    place = np.arange(len(wrong))[:, None, None] * way + result.predicted
    weights = np.broadcast_to(instead_EN[:, :, None], wrong.shape)[wrong]
    return sums(place[wrong], weights, len(wrong) * way).reshape(len(wrong), way)


def class_scores(gains: Gains) -> tuple[Floats, float]:
    """What each class adds to the sum over queries, beyond what an average class adds.

    Args:
        gains: of one method on another.

    Returns:
        (C,) scores of the classes that were drawn, and how much single episodes bring by chance to
        the sum of their squares beyond what they bring to the square of the sum over queries.
    """
    classes, queries = gains.episodes.classes, gains.own.shape[2]
    own_EN = gains.own.sum(axis=2) - gains.mean * queries
    slot_EN = own_EN + gains.drawn - gains.drawn.mean()
    scores = sums(classes, slot_EN, len(gains.episodes.class_names))
    by_chance = float((slot_EN**2).sum() - (own_EN.sum(axis=1) ** 2).sum())
    return scores[np.unique(classes)], by_chance


def class_means(classes: NDArray[np.int64], values: Floats) -> Floats:
    """Mean of each class's values, put back where the class stands.

    Args:
        classes: (E, N) class numbers.
        values: (E, N).

    Returns:
        (E, N).
    """
    count = np.bincount(classes.ravel())
    total = sums(classes, values, len(count))
    means: Floats = (total / np.maximum(count, 1))[classes]
    return means


def sums(numbers: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """Sum up the values that stand beside each number.

    Args:
        numbers: any shape, below ``count``.
        values: of a shape that broadcasts to it.
        count: of numbers.

    Returns:
        (count,).
    """
    weights = np.broadcast_to(values, numbers.shape).ravel()
    found = np.bincount(numbers.ravel(), weights=weights, minlength=count)
    return found.astype(np.float64, copy=False)
