"""Which of a detector's boxes are kept: each for one slot, sure enough, and none twice.

Shape letters: F frames, Q boxes of a frame, N nouns, S slots that are looked for, K boxes kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.segmenters.grounding_dino import Detections


class SlotBoxes(NamedTuple):
    """The P boxes that are kept, of all frames and slots."""

    boxes: Tensor
    """(P, 4) float. x0, y0, x1, y1 as shares of the frame."""
    scores: Tensor
    """(P,) float in [0, 1]."""
    frame: Tensor
    """(P,) int64, ascending."""
    column: Tensor
    """(P,) int64. Which of the S slots."""


def select_boxes(
    found: Detections,
    columns: Sequence[Sequence[int]],
    *,
    min_score: float,
    max_overlap: float,
    most: int,
) -> SlotBoxes:
    """Keep the best boxes of each frame and slot.

    A box belongs to the slot whose best synonym it answers to most, so that one box does not become
    both actor and object.

    Args:
        found: boxes with (F, Q, N) scores.
        columns: S lists. The nouns, of N, that are synonyms for each slot.
        min_score: boxes below are dropped.
        max_overlap: boxes whose IoU with a better one of their slot is larger are dropped.
        most: K, boxes kept of each frame and slot.

    Returns:
        The boxes, by frame, slot and falling score.
    """
    slots = torch.stack([found.scores[..., list(own)].amax(dim=-1) for own in columns], dim=1)
    owner = slots.argmax(dim=1, keepdim=True)
    own = owner == torch.arange(len(columns), device=slots.device)[:, None]
    scores, query = torch.where(own, slots, -1.0).sort(dim=2, descending=True, stable=True)
    # A detector repeats itself: look at more boxes than are kept.
    scores, query = scores[..., : 4 * most], query[..., : 4 * most]
    boxes = found.boxes[:, None].expand(-1, len(columns), -1, -1)
    boxes = boxes.gather(2, query[..., None].expand(-1, -1, -1, 4))
    kept = (scores >= min_score) & _first_of_their_kind(boxes, scores >= min_score, max_overlap)
    kept &= kept.cumsum(dim=2) <= most
    frame, column, _ = kept.nonzero(as_tuple=True)
    return SlotBoxes(boxes[kept], scores[kept], frame, column)


def _first_of_their_kind(boxes: Tensor, candidates: Tensor, max_overlap: float) -> Tensor:
    """(F, S, M) bool: greedy non-maximum suppression of boxes in falling order, batched."""
    overlaps = box_iou(boxes) > max_overlap
    kept = candidates.clone()
    for i in range(boxes.shape[2] - 1):
        kept[..., i + 1 :] &= ~(overlaps[..., i, i + 1 :] & kept[..., i : i + 1])
    return kept


def box_iou(boxes: Tensor) -> Tensor:
    """(..., M, M) intersection over union of (..., M, 4) boxes with one another."""
    low = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    union = area[..., :, None] + area[..., None, :] - shared
    return shared / union.clamp(min=1e-12)
