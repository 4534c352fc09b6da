"""Differences between two rows of the table, and how far each kind of interval reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2st_model.bootstrap import class_half_width
from i2st_model.clusters import class_scores, gains_of
from i2st_model.results import Result
from i2st_model.statistics import paired_difference, seed_interval

Pair = tuple[Sequence[Result], Sequence[Result]]
"""Results of two variants on one split, by seed."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paired difference in points, mean over splits, with 95 % half-widths."""

    mean: float
    episodes: float
    """Over other episodes of the same videos, classes and weights."""
    classes: float | None
    """Over other classes with videos of their own; a class of several folds counts once."""
    seeds: float | None
    """Over other training seeds; None with fewer than two."""

    def __str__(self) -> str:
        apart = ["-" if h is None else f"{h:.2f}" for h in (self.classes, self.seeds)]
        return f"{self.mean:+.2f} ({self.episodes:.2f}; {apart[0]}; {apart[1]})"


def difference(pairs: Sequence[Pair]) -> Difference:
    """Compare two variants on splits that both have results on."""
    paired = [paired_difference(_mean(first), _mean(second)) for first, second in pairs]
    return Difference(
        mean=float(np.mean([one.mean for one in paired])),
        episodes=float(np.sqrt(sum(one.half_width**2 for one in paired))) / len(paired),
        classes=_over_classes(pairs),
        seeds=_over_seeds(pairs),
    )


def _mean(results: Sequence[Result]) -> np.ndarray:
    return np.mean([result.per_episode for result in results], axis=0)


def _over_classes(pairs: Sequence[Pair]) -> float | None:
    """Sum what a class adds over all splits, before classes are compared."""
    by_class: dict[str, float] = {}
    by_chance, queries = 0.0, 0
    for first, second in pairs:
        gains = gains_of(first, second)
        scores, chance = class_scores(gains)
        names = [gains.episodes.class_names[n] for n in np.unique(gains.episodes.classes)]
        for name, score in zip(names, scores.tolist(), strict=True):
            by_class[name] = by_class.get(name, 0.0) + score
        by_chance += chance
        queries += gains.own.size
    half = class_half_width(np.array(list(by_class.values())), by_chance)
    return None if half is None else 100 * half / queries


def _over_seeds(pairs: Sequence[Pair]) -> float | None:
    """Seeds are paired where both variants have them; a variant without any stands for all."""
    count = min(max(len(first), len(second)) for first, second in pairs)
    per_seed = [
        np.mean([_mean([_of(first, s)]) - _mean([_of(second, s)]) for first, second in pairs])
        for s in range(count)
    ]
    interval = seed_interval(per_seed)
    return None if interval is None else interval.half_width


def _of(results: Sequence[Result], seed: int) -> Result:
    return results[min(seed, len(results) - 1)]
