"""What of a frame's view its masks cover, and whether that teaches anything.

Shape letters: B clips, T frames, M mask slots, S side of the targets.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.masks import grid_coverage
from pipeline.views import BASE, View, mask_window

MAX_COVERAGE = 0.95
"""A mask over more of the view than this says nothing about where the action is. Our choice."""


def coverage_of_views(
    bits: NDArray[np.uint8],
    found: NDArray[np.bool_],
    side: int,
    *,
    geometry: str,
    views: tuple[View, ...],
    shown: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Show masks as stored views show their frames.

    Args:
        bits: (B, T, M, 2048) uint8, packed masks over the full frame.
        found: (B, T, M). Slots that are not found add nothing.
        side: S.
        geometry: of the base view.
        views: the stored views beside it.
        shown: (B,) 0 for the base view, k for the k-th of ``views``.

    Returns:
        (B, T, S, S) share of each cell that is covered.
    """
    coverage = np.empty((*found.shape[:2], side, side), np.float32)
    for number in np.unique(shown):
        here = shown == number
        window = mask_window(geometry, (BASE, *views)[number])
        coverage[here] = grid_coverage(bits[here], found[here], side, window)
    return coverage


def supervises(coverage: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether masks teach anything: something is found, in view, and not nearly everything.

    Args:
        coverage: (..., S, S) share of each cell of a view.
        found: (..., M).

    Returns:
        (...) bool.
    """
    share = coverage.mean(axis=(-2, -1))
    valid: NDArray[np.bool_] = found.any(axis=-1) & (share > 0) & (share <= MAX_COVERAGE)
    return valid
