"""Which of a detector's boxes are kept: each for one slot, sure enough, and none twice.

Shape letters: F frames, Q boxes of a frame, N nouns, S slots, K boxes kept of each, M looked at.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.segmenters.open_vocabulary.grounding_dino import Detections


class SlotBoxes(NamedTuple):
    """Boxes that are kept, in a fixed layout."""

    boxes: Tensor
    """(F, S, K, 4) float. x0, y0, x1, y1 as shares of the frame."""
    scores: Tensor
    """(F, S, K) float in [0, 1], falling; 0 where there is no box."""


def select_boxes(
    found: Detections,
    synonyms: Sequence[Sequence[int]],
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
        synonyms: S lists. The nouns, of N, that each slot is looked for by; empty for none.
        min_score: boxes below are dropped.
        max_overlap: boxes whose IoU with a better one of their slot is larger are dropped.
        most: K, boxes kept of each frame and slot.

    Returns:
        The boxes.
    """
    slots = torch.stack([_best_of(found.scores, own) for own in synonyms], dim=1)
    owner = slots.argmax(dim=1, keepdim=True)
    own = owner == torch.arange(len(synonyms), device=slots.device)[:, None]
    # A detector repeats itself: look at more boxes than are kept.
    scores, query = torch.where(own & (slots >= min_score), slots, 0.0).sort(
        dim=2, descending=True, stable=True
    )
    scores, boxes = scores[..., : 4 * most], _boxes_of(found.boxes, query[..., : 4 * most])
    kept = _first_of_their_kind(boxes, scores > 0, max_overlap)
    scores, order = torch.where(kept, scores, 0.0).sort(dim=2, descending=True, stable=True)
    order = order[..., :most, None].expand(-1, -1, -1, 4)
    return SlotBoxes(boxes.gather(2, order), scores[..., :most])


def _best_of(scores: Tensor, columns: Sequence[int]) -> Tensor:
    """(F, Q) best score over some of N nouns; 0 for no noun."""
    best: Tensor = scores[..., list(columns)].amax(dim=-1) if columns else scores[..., 0] * 0
    return best


def _boxes_of(boxes: Tensor, query: Tensor) -> Tensor:
    """(F, S, M, 4) boxes that (F, S, M) indices choose from (F, Q, 4)."""
    rows = torch.arange(len(boxes), device=boxes.device)[:, None, None]
    return boxes[rows, query]


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
