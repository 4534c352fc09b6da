"""Differences between two rows of the table, with `i2st compare`'s intervals, over folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2st_model.comparing.folds import join_folds
from i2st_model.comparison import Comparison, compare
from i2st_model.records.results import Result
from i2st_model.statistics import seed_interval

Pair = tuple[Sequence[Result], Sequence[Result]]
"""Results of two variants on one split, by seed; a single one stands for all seeds."""
LEGEND = (
    "In brackets 95 % half-widths over other episodes of these videos, other sources of these "
    "classes, other classes with their own videos, and other training seeds. Folds that test the "
    "same classes again count once in the second and third."
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paired difference in points, mean over splits, with 95 % half-widths."""

    mean: float
    halves: tuple[float | None, ...]
    """Over episodes, sources of videos, classes, seeds; None where the data cannot tell."""

    def __str__(self) -> str:
        words = ["-" if half is None else f"{half:.1f}" for half in self.halves]
        return f"{self.mean:+.2f} ({', '.join(words)})"


def difference(orders: Sequence[Sequence[Pair]]) -> Difference:
    """Compare two variants.

    Args:
        orders: each holds pairs on splits that share no test class, see `folds_of`; different
            orders share all or most of them.

    Returns:
        Mean over the orders. Episodes differ between orders, sources and classes do not: there an
        order's half-width stands for all.
    """
    joined = [_joined(pairs) for pairs in orders]
    compared = [compare(first, second) for first, second in joined]
    return Difference(
        mean=float(np.mean([one.difference for one in compared])),
        halves=(
            _mean_half(compared, "episodes", 1 / len(orders) ** 0.5),
            _mean_half(compared, "videos"),
            _mean_half(compared, "classes"),
            _over_seeds(joined),
        ),
    )


def _mean_half(compared: Sequence[Comparison], name: str, factor: float = 1.0) -> float | None:
    """Root mean square of the half-widths, None where one is absent."""
    halves = [one.intervals[name] for one in compared]
    known = [half.half_width for half in halves if half is not None]
    if len(known) < len(halves):
        return None
    return factor * float(np.sqrt(np.mean(np.square(known))))


def _joined(pairs: Sequence[Pair]) -> Pair:
    """Join the splits of each seed that both sides have on every split."""
    counts = [len(side) for pair in pairs for side in pair if len(side) > 1]
    seeds = min(counts, default=1)

    def side(number: int) -> list[Result]:
        several = min(seeds, min(len(pair[number]) for pair in pairs))
        return [join_folds([pair[number][seed] for pair in pairs]) for seed in range(several)]

    return side(0), side(1)


def _over_seeds(joined: Sequence[Pair]) -> float | None:
    seeds = min(max(len(first), len(second)) for first, second in joined)
    per_seed = [
        float(np.mean([_of(first, seed) - _of(second, seed) for first, second in joined]))
        for seed in range(seeds)
    ]
    interval = seed_interval(per_seed)
    return None if interval is None else interval.half_width


def _of(results: Sequence[Result], seed: int) -> float:
    return float(results[min(seed, len(results) - 1)].per_episode.mean())
