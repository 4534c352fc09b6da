"""Means over episodes with their 95 % half-width, in percent.

The half-width 1.96 s / sqrt(n) is the field's; it covers the draw of episodes only, neither
training seeds nor class splits.
"""

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
