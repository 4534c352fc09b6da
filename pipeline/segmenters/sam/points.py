"""Masks that SAM proposes for a grid of points, the repetitions among them removed.

What SamAutomaticMaskGenerator does for one image on the CPU, with a fixed number of masks per
frame, so that a GPU never waits for the CPU. Areas and stability are limited here, which the
published generator does not do or does with infinities (segment_anything issue 309, pull request
853).

Shape letters: B frames, Q candidate masks of a frame, K kept, S side of SAM's masks.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames

POINTS_PER_CALL = 64
"""Bounds the logits that exist at once to 50 MB: three masks of 256 x 256 a point."""
OVERLAP_SIDE = 64
"""Overlaps are measured on cells of a 64 x 64 grid over the frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalSettings:
    """Every number that decides the proposals. Our choice."""

    points_per_side: int = 16
    """Half of the generator's 32: a quarter of its cost."""
    kept: int = 64
    """Masks per frame, at most."""
    min_quality: float = 0.8
    """Least IoU that SAM expects; laxer than the generator's 0.88, for CLIP judges afterwards."""
    min_stability: float = 0.9
    """Least IoU of the masks at a stricter and a laxer threshold; the generator's is 0.95."""
    stability_offset: float = 1.0
    """Logits between the threshold and each of the two; the generator's."""
    min_area: float = 5e-4
    """Least share of the frame."""
    max_area: float = 0.9
    """Largest."""
    max_overlap: float = 0.7
    """A mask that overlaps a better one by a larger IoU repeats it; the generator's."""


class Proposals(NamedTuple):
    """K masks for each of B frames, best first."""

    masks: Tensor
    """(B, K, S, S) bool. Set within the frame's extent only; nowhere if not valid."""
    quality: Tensor
    """(B, K) float. SAM's estimate of the IoU; 0 if not valid."""
    valid: Tensor
    """(B, K) bool. False where a frame has fewer masks."""


class PointDecoder(Protocol):
    """What is asked of SAM; SamDecoder answers."""

    def decode_points(
        self, frames: EmbeddedFrames, frame_index: Tensor, points: Tensor
    ) -> Candidates:
        """Three candidates for each of P points."""
        ...


def propose(
    sam: PointDecoder, frames: EmbeddedFrames, settings: ProposalSettings | None = None
) -> Proposals:
    """Propose masks for each frame by itself.

    Args:
        sam: the decoder.
        frames: B embedded frames.
        settings: numbers of the recipe.

    Returns:
        K masks per frame.
    """
    settings = settings or ProposalSettings()
    found = [
        _propose(sam, EmbeddedFrames(embedding[None], frames.extent), settings)
        for embedding in frames.embeddings
    ]
    return Proposals(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def grid_points(count: int, device: torch.device) -> Tensor:
    """(count * count, 2) x, y of the centres of a grid's cells, as shares of the frame."""
    places = (torch.arange(count, device=device) + 0.5) / count
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def _propose(sam: PointDecoder, frame: EmbeddedFrames, settings: ProposalSettings) -> Proposals:
    """Masks of one frame, without the axis of frames."""
    masks, scores = [], []
    points = grid_points(settings.points_per_side, frame.embeddings.device)
    for part in points.split(POINTS_PER_CALL):
        index = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        rated = judge(sam.decode_points(frame, index, part), frame.extent, settings)
        masks.append(rated[0])
        scores.append(rated[1])
    all_masks, all_scores = torch.cat(masks), torch.cat(scores)
    cells = overlap_cells(all_masks, frame.extent)
    rows, valid = suppress(cells, all_scores, settings.kept, settings.max_overlap)
    return Proposals(
        all_masks[rows] & valid[:, None, None], torch.where(valid, all_scores[rows], 0.0), valid
    )


def judge(
    candidates: Candidates, extent: tuple[float, float], settings: ProposalSettings
) -> tuple[Tensor, Tensor]:
    """Cut candidates at their threshold and rate them.

    Args:
        candidates: three masks for each of P points.
        extent: rows and columns of the masks that the frame fills.
        settings: numbers of the recipe.

    Returns:
        (3 P, S, S) bool masks, and (3 P,) qualities; 0 where a mask is rejected.
    """
    logits, quality = candidates.logits.flatten(0, 1), candidates.quality.flatten()
    centres = torch.arange(logits.shape[-1], device=logits.device) + 0.5
    shown = (centres < extent[0])[:, None] & (centres < extent[1])
    masks = (logits > 0) & shown
    area = masks.sum(dim=(-2, -1)) / (extent[0] * extent[1])
    accepted = (quality >= settings.min_quality) & (area >= settings.min_area)
    held = stability(logits, shown, settings.stability_offset)
    accepted &= (held >= settings.min_stability) & (area <= settings.max_area)
    return masks, torch.where(accepted, quality, 0.0)


def stability(logits: Tensor, shown: Tensor, offset: float) -> Tensor:
    """How far masks hold when their threshold moves, as SAM's own generator measures it.

    Args:
        logits: (..., S, S) float.
        shown: (S, S) bool. Cells that the frame fills.
        offset: logits from the threshold, both ways.

    Returns:
        (...) float. IoU of the masks at the stricter and the laxer threshold; 0 for none.
    """
    strict, lax = (((logits > at) & shown).sum(dim=(-2, -1)) for at in (offset, -offset))
    return strict / lax.clamp(min=1)


def overlap_cells(masks: Tensor, extent: tuple[float, float]) -> Tensor:
    """(Q, 64 * 64) bool: the cells of the frame that (Q, S, S) masks touch.

    Touched, not covered: the smallest masks cover no cell, and would overlap nothing.
    """
    rows, columns = (round(length) for length in extent)
    touched = functional.adaptive_max_pool2d(masks[:, :rows, :columns].float(), OVERLAP_SIDE)
    return touched.flatten(1) > 0


def suppress(
    cells: Tensor, scores: Tensor, count: int, max_overlap: float
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression by IoU of masks, in a fixed number of steps.

    Args:
        cells: (Q, n) bool. Cells of each mask.
        scores: (Q,) float. Higher is kept first, of equal ones the larger mask, then the earlier;
            0: never.
        count: masks to keep, K.
        max_overlap: IoU with a kept mask from which on a mask is dropped, exclusive.

    Returns:
        (K,) int64 masks, best first, and (K,) bool; False where none was left.
    """
    by_area = cells.sum(dim=1).argsort(descending=True, stable=True)
    order = by_area[scores[by_area].argsort(descending=True, stable=True)]
    overlap = _ious(cells[order].float())
    left = scores[order] > 0
    # The first of those left has the largest rank; ranks differ, so that the choice is one.
    rank = torch.arange(len(scores), 0, -1, device=scores.device)
    rows, valid = [], []
    for _ in range(count):
        best = (left * rank).argmax()[None]
        valid.append(left.gather(0, best))
        rows.append(order.gather(0, best))
        left = left & (overlap.index_select(0, best)[0] <= max_overlap)
        left = left & (rank != rank.gather(0, best))
    return torch.cat(rows), torch.cat(valid)


def _ious(cells: Tensor) -> Tensor:
    """(Q, Q) IoU of (Q, n) masks of zeros and ones; 0 for two empty ones."""
    shared = cells @ cells.T
    area = cells.sum(dim=1)
    return shared / (area[:, None] + area - shared).clamp(min=1)
