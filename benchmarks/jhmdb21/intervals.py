"""Differences between two rows of the table, with `i2st compare`'s intervals, over many splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2st_model.bootstrap import class_half_width
from i2st_model.clusters import class_scores, gains_of, video_variance
from i2st_model.comparison import require_same_episodes
from i2st_model.results import Result
from i2st_model.statistics import Z_95, paired_difference, seed_interval

Pair = tuple[Sequence[Result], Sequence[Result]]
"""Results of two variants on one split, by seed."""
LEGEND = (
    "In brackets 95 % half-widths over other episodes of these videos, other videos of these "
    "classes, other classes with their own videos, and other training seeds. A class that several "
    "folds test brings its evidence once."
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paired difference in points, mean over splits, with 95 % half-widths."""

    mean: float
    halves: tuple[float | None, ...]
    """Over episodes, videos, classes, seeds; None where the data cannot tell."""

    def __str__(self) -> str:
        words = ["-" if half is None else f"{half:.1f}" for half in self.halves]
        return f"{self.mean:+.2f} ({', '.join(words)})"


def difference(pairs: Sequence[Pair]) -> Difference:
    """Compare two variants on splits that both have results on."""
    for first, second in pairs:
        require_same_episodes([*first, *second])
    paired = [paired_difference(_mean(first), _mean(second)) for first, second in pairs]
    episodes = float(np.sqrt(sum(one.half_width**2 for one in paired))) / len(paired)
    videos, classes = _over_clusters(pairs)
    if classes is not None:
        classes = max(classes, videos or episodes)
    return Difference(
        mean=float(np.mean([one.mean for one in paired])),
        halves=(episodes, videos, classes, _over_seeds(pairs)),
    )


def _mean(results: Sequence[Result]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([result.per_episode for result in results], axis=0)
    return mean


def _over_clusters(pairs: Sequence[Pair]) -> tuple[float | None, float | None]:
    """Half-widths over videos and over classes; what a class adds is summed over the splits."""
    by_class: dict[str, float] = {}
    variances: list[float | None] = []
    by_chance, queries, tested = 0.0, 0, 0
    for first, second in pairs:
        gains = gains_of(first, second)
        scores, chance = class_scores(gains)
        names = [gains.episodes.class_names[n] for n in np.unique(gains.episodes.classes)]
        for name, score in zip(names, scores.tolist(), strict=True):
            by_class[name] = by_class.get(name, 0.0) + score
        variances.append(video_variance(gains))
        by_chance, queries, tested = (
            by_chance + chance,
            queries + gains.own.size,
            tested + len(names),
        )
    known = [one for one in variances if one is not None]
    videos = None
    if len(known) == len(pairs):
        # Videos that r folds test are r times the same evidence, not more of it.
        videos = 100 * Z_95 * float(np.sqrt(sum(known) * tested / len(by_class))) / len(pairs)
    half = class_half_width(np.array(list(by_class.values())), by_chance)
    return videos, None if half is None else 100 * half / queries


def _over_seeds(pairs: Sequence[Pair]) -> float | None:
    """Seeds are paired where both variants have them; a variant without any stands for all."""
    counts = [len(side) for pair in pairs for side in pair if len(side) > 1]
    if not counts:
        return None
    per_seed = [
        float(np.mean([_of(first, s) - _of(second, s) for first, second in pairs]))
        for s in range(min(counts))
    ]
    interval = seed_interval(per_seed)
    return None if interval is None else interval.half_width


def _of(results: Sequence[Result], seed: int) -> float:
    return float(results[min(seed, len(results) - 1)].per_episode.mean())
