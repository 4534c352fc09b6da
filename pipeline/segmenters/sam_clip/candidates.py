"""Choosing among SAM's candidate masks by the map that prompted them.

SAM's own quality says how crisp a mask is, not whether it shows the noun: for a small object its
best mask is often the background around it (CLIP_Surgery issue 4). The map decides, the quality
weighs.

Shape letters: P prompts, 4 candidates each, S side of the low-resolution masks, gh x gw cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters.sam.decoding import Candidates
from pipeline.segmenters.sam.points import stability

RING_CELLS = 2
"""Width in cells of the map of the ring around a mask that the mask must stand out from."""
STABILITY_OFFSET = 1.0
"""Logits by which the threshold is moved to see whether a mask holds; SAM's own value."""


class Chosen(NamedTuple):
    """The best candidate of each of P prompts."""

    masks: Tensor
    """(P, S, S) bool. Set within the frame's extent only."""
    score: Tensor
    """(P,) float in [0, 1]; 0 where every candidate was rejected."""


def choose(
    candidates: Candidates,
    maps: Tensor,
    peak_values: Tensor,
    extent: tuple[float, float],
    *,
    min_area: float,
    max_area: float,
) -> Chosen:
    """Score every candidate and keep the best of each prompt.

    The score is (mean of the map inside - mean in a ring outside) * sqrt(quality * stability).
    Rejected: shares of the frame beyond the limits, and masks in which the map is on average below
    half of its peak.

    Args:
        candidates: of P prompts.
        maps: (P, gh, gw) float. The map of each prompt's noun in its frame.
        peak_values: (P,) float. The map at the prompt's point.
        extent: rows and columns of the S x S masks that the frame fills.
        min_area: least share of the frame.
        max_area: largest share of the frame.

    Returns:
        The choice; ``score`` 0 marks a prompt without an acceptable candidate.
    """
    side = candidates.logits.shape[-1]
    on_masks, valid = map_on_masks(maps, side, extent)
    masks = (candidates.logits > 0) & valid
    ring = _dilate(masks, _ring_width(maps.shape[-2:], extent)) & valid & ~masks
    inside = _mean_under(on_masks[:, None], masks)
    contrast = inside - _mean_under(on_masks[:, None], ring)
    held = stability(candidates.logits, valid, STABILITY_OFFSET)
    score = contrast * (candidates.quality.clamp(0, 1) * held).sqrt()
    area = masks.sum(dim=(-2, -1)) / (extent[0] * extent[1])
    accepted = (area >= min_area) & (area <= max_area) & (inside >= 0.5 * peak_values[:, None])
    score, best = torch.where(accepted, score, 0.0).clamp(0, 1).max(dim=1)
    return Chosen(masks.take_along_dim(best[:, None, None, None], dim=1)[:, 0], score)


def map_on_masks(maps: Tensor, side: int, extent: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Sample maps over the frame at the centres of the low-resolution mask's cells.

    Args:
        maps: (P, gh, gw) float. They cover the frame.
        side: of the masks, S.
        extent: rows and columns that the frame fills.

    Returns:
        (P, S, S) float, and (S, S) bool: cells whose centre lies in the frame.
    """
    centres = torch.arange(side, device=maps.device) + 0.5
    y, x = (2 * centres / length - 1 for length in extent)
    points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    sampled = functional.grid_sample(
        maps[:, None].float(),
        points.expand(len(maps), -1, -1, -1),
        padding_mode="border",
        align_corners=False,
    )
    valid = (y < 1)[:, None] & (x < 1)[None, :]
    return sampled[:, 0], valid


def _ring_width(grid: torch.Size, extent: tuple[float, float]) -> tuple[int, int]:
    rows, columns = (
        max(1, round(RING_CELLS * length / cells))
        for length, cells in zip(extent, grid, strict=True)
    )
    return rows, columns


def _dilate(masks: Tensor, width: tuple[int, int]) -> Tensor:
    """Grow (P, 4, S, S) bool masks by ``width`` rows and columns, one axis after the other."""
    for reach, (down, right) in zip(width, ((1, 0), (0, 1)), strict=True):
        ahead = behind = masks
        grown = 0
        while grown < reach:
            # What has grown by n cells has grown by 2 n + 1 when laid behind itself.
            step = min(grown + 1, reach - grown)
            ahead = ahead | _moved(ahead, step * down, step * right)
            behind = behind | _moved(behind, -step * down, -step * right)
            grown += step
        masks = ahead | behind
    return masks


def _moved(masks: Tensor, down: int, right: int) -> Tensor:
    return functional.pad(masks, (right, -right, down, -down))


def _mean_under(values: Tensor, masks: Tensor) -> Tensor:
    """Mean of values where masks are set; 0 where nothing is."""
    return (values * masks).sum(dim=(-2, -1)) / masks.sum(dim=(-2, -1)).clamp(min=1)
