"""How well masks agree with the truth, frame by frame.

Shape letters: n frames, G cells along one side of a grid.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.masks import area_weights
from pipeline.segmenters import MASK_SIDE

COARSE_GRIDS = (14, 7)
"""Token grids of ViT-B/16 and of ResNet-50's last stage: where the masks are used."""
MEASURES = ("iou", *(f"soft_iou_{grid}" for grid in COARSE_GRIDS), "pointing", "p_50", "found")


def frame_scores(
    masks: NDArray[np.bool_], found: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Score each frame's mask against its truth.

    A mask that was not found scores 0 in everything, so that abstaining cannot raise a mean.

    Args:
        masks: (n, 128, 128) bool. Over the full frame.
        found: (n,) bool. False where there is no mask.
        truth: (n, 128, 128) bool. None of them empty.

    Returns:
        (n, 6) float64 in [0, 1], in the order of ``MEASURES``: IoU over the cells; soft IoU,
        sum(min) / sum(max), of the shares covered in 14 x 14 and 7 x 7 cells; whether the mask's
        middle lies on the truth; whether the IoU exceeds 0.5; whether there is a mask.

    Raises:
        ValueError: the shapes differ, or a truth is empty.
    """
    if masks.shape != truth.shape or found.shape != masks.shape[:1]:
        raise ValueError(f"masks {masks.shape}, found {found.shape}, truth {truth.shape} differ")
    if not truth.any(axis=(1, 2)).all():
        raise ValueError("a truth is empty; frames without truth must be left out")
    seen = masks & found[:, None, None]
    there = np.asarray(seen.any(axis=(1, 2)))
    iou = _soft_iou(seen.astype(np.float64), truth.astype(np.float64))
    coarse = [_soft_iou(_coverage(seen, grid), _coverage(truth, grid)) for grid in COARSE_GRIDS]
    columns = [iou, *coarse, there & _is_pointing(seen, truth), iou > 0.5, there]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def middle_cells(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find the cell of each mask that lies nearest to its centre of mass.

    A binary mask has no peak to point with, and its centre of mass may lie beside it. In whole
    numbers, so that symmetric masks do not depend on rounding; among equals the first row wins.

    Args:
        masks: (n, H, W) bool.

    Returns:
        (n, 2) row and column; (0, 0) for an empty mask.
    """
    height, width = masks.shape[1:]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    area = masks.sum(axis=(1, 2))[:, None, None]
    off_rows = area * rows - (masks * rows).sum(axis=(1, 2))[:, None, None]
    off_columns = area * columns - (masks * columns).sum(axis=(1, 2))[:, None, None]
    distance = np.where(masks, off_rows**2 + off_columns**2, np.iinfo(np.int64).max)
    flat = distance.reshape(len(masks), -1).argmin(axis=1)
    return np.stack(np.unravel_index(flat, (height, width)), axis=1)


def _is_pointing(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = middle_cells(masks).T
    return truth[np.arange(len(truth)), rows, columns]


def _coverage(masks: NDArray[np.bool_], grid: int) -> NDArray[np.float64]:
    weights = area_weights(grid, MASK_SIDE)
    return weights @ masks.astype(np.float64) @ weights.T


def _soft_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    common = np.minimum(first, second).sum(axis=(1, 2))
    return common / np.maximum(first, second).sum(axis=(1, 2))
