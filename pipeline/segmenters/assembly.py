"""From chosen masks to what is stored: pooled to cells, actors selected, united per slot.

Shape letters: P instances, S side of SAM's low-resolution masks, gh x gw cells of a map.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.masks import area_weights
from pipeline.segmenters import MASK_SIDE, NUM_SLOTS, Masks

MAX_LOOSE_ACTORS = 2
"""Actors kept where none of them touches an object."""


def pool_to_cells(masks: Tensor, extent: tuple[float, float]) -> Tensor:
    """Pool (P, S, S) bool masks, of which the frame fills ``extent``, to (P, 128, 128) bool.

    A cell is set where more than half of it is covered, as in pipeline.masks.
    """
    rows, columns = (
        torch.from_numpy(area_weights(MASK_SIDE, masks.shape[-1], length)).to(masks.device)
        for length in extent
    )
    return rows @ masks.double() @ columns.T > 0.5 + 1e-9


def threshold_to_cells(maps: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Cut maps at their thresholds on 128 x 128 cells.

    Args:
        maps: (P, gh, gw) float.
        thresholds: (P,) float.

    Returns:
        (P, 128, 128) bool, and (P,) float mean of the map where it is set.
    """
    fine = functional.interpolate(
        maps[:, None], (MASK_SIDE, MASK_SIDE), mode="bilinear", align_corners=False
    )[:, 0]
    masks = fine > thresholds[:, None, None]
    total = (fine * masks).sum(dim=(-2, -1))
    return masks, total / masks.sum(dim=(-2, -1)).clamp(min=1)


def select_actors(actors: Tensor, objects: Tensor) -> Tensor:
    """Which of several actors of a frame act: those that touch an object, else the largest two.

    Args:
        actors: (P, 128, 128) bool.
        objects: (128, 128) bool. Union of the frame's objects.

    Returns:
        (P,) bool.
    """
    if len(actors) < 2:
        return torch.ones(len(actors), dtype=torch.bool, device=actors.device)
    near = functional.max_pool2d(objects[None, None].float(), 3, 1, 1)[0, 0] > 0
    touching = (actors & near).any(dim=(-2, -1))
    if touching.any():
        return touching
    largest = actors.sum(dim=(-2, -1)).argsort(descending=True, stable=True)
    keep = torch.zeros_like(touching)
    keep[largest[:MAX_LOOSE_ACTORS]] = True
    return keep


def unite(
    maps: Tensor,
    thresholds: Tensor,
    map_index: Tensor,
    instances: Tensor,
    scores: Tensor,
    *,
    slots: Sequence[int],
    max_area: float,
    fallback_score: float,
) -> Masks:
    """Unite the instances of each frame and noun.

    Where SAM offered nothing acceptable, the map itself stands in, cut at its threshold and with a
    low score, unless it covers nearly everything.

    Args:
        maps: (F * N, gh, gw) float. Nouns within frames.
        thresholds: (F * N,) float. Where each map is cut.
        map_index: (P,) int64. The map of each instance.
        instances: (P, 128, 128) bool.
        scores: (P,) float. 0 where SAM offered nothing acceptable.
        slots: slot of each of the N nouns, ascending.
        max_area: largest share of the frame that a map may cover when it stands in.
        fallback_score: factor on such a map's mean, its score.

    Returns:
        Masks of the F frames; what is empty is not found.
    """
    num_frames = len(maps) // len(slots)
    cells = torch.zeros(num_frames, NUM_SLOTS, MASK_SIDE, MASK_SIDE, dtype=torch.bool)
    score = torch.zeros(num_frames, NUM_SLOTS)
    loose, means = threshold_to_cells(maps, thresholds)
    # From the last noun to the first: a frame's objects must be known when its actors are selected.
    for index in map_index.unique().flip(0).tolist():
        frame, slot = index // len(slots), slots[index % len(slots)]
        rows = ((map_index == index) & (scores > 0)).nonzero()[:, 0]
        if slot == 0 and len(rows):
            objects = cells[frame, 1:].any(dim=0).to(instances.device)
            rows = rows[select_actors(instances[rows], objects)]
        if len(rows):
            cells[frame, slot] = instances[rows].any(dim=0).cpu()
            score[frame, slot] = scores[rows].mean().cpu()
        elif loose[index].float().mean() <= max_area:
            cells[frame, slot] = loose[index].cpu()
            score[frame, slot] = fallback_score * means[index].cpu()
    return _packed(cells, score)


def _packed(cells: Tensor, score: Tensor) -> Masks:
    """Bit-pack (F, S, 128, 128) bool cells; what is empty is not found."""
    found = cells.flatten(2).any(dim=2).numpy()
    bits = np.packbits(cells.flatten(2).numpy(), axis=-1)
    return Masks(bits=bits, found=found, score=np.where(found, score.numpy(), 0).astype(np.float16))
