"""Interval of a difference over classes: a studentised bootstrap of the classes.

Resampled are whole classes with all their videos. How much videos differ is then part of how much
classes differ; resampling the videos inside them as well would count it twice (Davison and Hinkley
1997, section 3.8). With as few as ten classes the normal quantile is too small, so the bootstrap
finds the quantile of the studentised difference itself (bootstrap-t, symmetric).

Shape letters: C classes, R rounds.
"""

import numpy as np
from numpy.typing import NDArray

from i2st_model.statistics import t_quantile

ROUNDS = 2000
LEAST_CLASSES = 4
"""Fewer classes say nothing about other classes."""


def student_quantile(scores: NDArray[np.float64], *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """95 % quantile of the absolute studentised mean, by resampling the scores.

    Args:
        scores: (C,) what each class adds.
        rounds: R, of the bootstrap.
        seed: of the resampling.

    Returns:
        What takes the place of 1.96; that of Student's law where so few scores differ that too many
        rounds draw one value alone.
    """
    count = len(scores)
    centred = scores - scores.mean()
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)
    mean_R = draws @ centred / count
    variance_R = draws @ centred**2 / count - mean_R**2
    flat = variance_R <= 1e-12 * (centred**2).mean()
    error_R = np.sqrt(np.where(flat, 1.0, variance_R) / (count - 1))
    student_R = np.where(flat, np.inf, np.abs(mean_R) / error_R)
    found = float(np.quantile(student_R, 0.95, method="higher"))
    return found if np.isfinite(found) else t_quantile(count - 1)


def class_half_width(
    scores: NDArray[np.float64], by_chance: float, returned: float, *, seed: int = 0
) -> float | None:
    """95 % half-width of a sum over other classes, each with videos of its own.

    A class's companions in an episode are any of the others, never the class itself, and answers
    concern both; so a score shows but (C - 1 - returned) / (C - 1) of a class's effect.

    Args:
        scores: (C,) what each class adds to the sum, see `class_scores`.
        by_chance: what single episodes bring to the sum of squares beyond their due.
        returned: share of a gain on queries that the scores of other classes repeat, see `Gains`.
        seed: of the resampling.

    Returns:
        In the scores' unit; None with fewer than `LEAST_CLASSES` classes.
    """
    count = len(scores)
    if count < LEAST_CLASSES:
        return None
    squares = float((scores**2).sum())
    # Half of it at least: what is taken off is an estimate, and never the queries' own share.
    variance = count / (count - 1) * max(squares - by_chance, squares / 2)
    shown = 1 - returned / (count - 1)
    return variance**0.5 / shown * student_quantile(scores, seed=seed) if variance > 0 else 0.0
