"""Means over episodes and over training seeds with their 95 % intervals, in percent.

The half-width 1.96 s / sqrt(n) is the field's; it covers the draw of episodes only, neither
training seeds nor other videos and classes. `i2st_model.comparison` has intervals for those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.96
"""Two-sided 95 % quantile of the normal law, rounded as the field rounds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """A mean over episodes, or over paired differences of episodes."""

    mean: float
    """Percent; percentage points for a difference."""
    half_width: float
    """95 % half-width in percentage points."""

    def __str__(self) -> str:
        return f"{self.mean:.2f} +/- {self.half_width:.2f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A difference with its 95 % interval, in percentage points."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of its length; intervals here are symmetric."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def mean_accuracy(per_episode: NDArray[np.floating] | Sequence[float]) -> Accuracy:
    """Mean of episode accuracies with 1.96 s / sqrt(n), s with n - 1 in the denominator.

    Args:
        per_episode: (n,) float. Accuracy of each episode in [0, 1], or differences in [-1, 1].

    Returns:
        Mean and half-width in percent.

    Raises:
        ValueError: fewer than two episodes, which have no spread.
    """
    values = np.asarray(per_episode, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"per_episode has shape {values.shape}; at least 2 episodes in one axis are needed"
        )
    spread = values.std(ddof=1)
    return Accuracy(
        mean=100.0 * float(values.mean()),
        half_width=100.0 * float(Z_95 * spread / np.sqrt(values.size)),
    )


def paired_difference(
    per_episode: NDArray[np.floating], baseline: NDArray[np.floating]
) -> Accuracy:
    """Mean of ``per_episode - baseline`` over the same episodes, with its half-width.

    The episodes' own difficulty cancels, so the interval is narrower than that of either mean.

    Args:
        per_episode: (n,) float. Accuracy in [0, 1] of one method on each episode.
        baseline: (n,) float. Accuracy of another method on the same episodes in the same order.

    Returns:
        Mean and half-width in percentage points.

    Raises:
        ValueError: the two differ in length.
    """
    first, second = np.asarray(per_episode), np.asarray(baseline)
    if first.shape != second.shape:
        raise ValueError(
            f"{first.size} and {second.size} episodes cannot be paired; pass the same episodes"
        )
    return mean_accuracy(first.astype(np.float64) - second.astype(np.float64))


def seed_interval(per_seed: Sequence[float]) -> Interval | None:
    """Mean over training seeds with Student's interval.

    Args:
        per_seed: (S,) differences of accuracies in [-1, 1], one per pair of training runs.

    Returns:
        In percentage points; None for a single seed, which has no spread.
    """
    values = 100.0 * np.asarray(per_seed, dtype=np.float64)
    if values.size < 2:
        return None
    half = t_quantile(values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size)
    mean = float(values.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half)


def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t law.

    Bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and
    26.7.4).

    Args:
        degrees: of freedom, at least 1.

    Returns:
        t with P(|T| <= t) = 0.95.
    """
    low, high = 0.0, 13.0  # 12.706 at one degree
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_inside(t: float, degrees: int) -> float:
    """P(|T| <= t)."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    factor = term = math.cos(angle) if odd else 1.0
    total = 0.0 if degrees == 1 else factor
    for power in range(2 + odd, degrees, 2):
        term *= (power - 1) / power * math.cos(angle) ** 2
        total += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
