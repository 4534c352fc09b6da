"""From judged instances to what is stored: pooled to cells, actors selected, united per slot.

Everything has one fixed layout: a frame's slots, each with room for K instances, of which a score
of 0 says that there is none.

Shape letters: B frames, S slots, K instances per slot, P masks, gh x gw cells of a map.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.masks import area_weights
from pipeline.segmenters import MASK_SIDE
from pipeline.segmenters.mask_packing import SlotMasks, upload

MAX_LOOSE_ACTORS = 2
"""Actors kept where none of them touches an object."""


def cover_of_cells(masks: Tensor, extent: tuple[float, float], cells: tuple[int, int]) -> Tensor:
    """Share of each of ``cells`` over the frame that a mask covers.

    Args:
        masks: (..., S, S) bool.
        extent: rows and columns of the masks that the frame fills.
        cells: rows and columns of cells that divide the frame.

    Returns:
        (..., *cells) float64 in [0, 1].
    """
    rows, columns = (
        upload(area_weights(count, masks.shape[-1], length), masks.device)
        for count, length in zip(cells, extent, strict=True)
    )
    return rows @ masks.double() @ columns.T


def pool_to_cells(masks: Tensor, extent: tuple[float, float]) -> Tensor:
    """Pool (..., S, S) bool masks, of which the frame fills ``extent``, to (..., 128, 128) bool.

    A cell is set where more than half of it is covered, as in pipeline.masks.
    """
    return cover_of_cells(masks, extent, (MASK_SIDE, MASK_SIDE)) > 0.5 + 1e-9


def cut_maps(
    maps: Tensor, thresholds: Tensor, *, max_area: float, score_factor: float
) -> SlotMasks:
    """Cut maps at their thresholds, to stand in where there is no acceptable instance.

    Args:
        maps: (B, S, gh, gw) float.
        thresholds: (B, S) float.
        max_area: largest share of the frame; a cut that covers more is emptied.
        score_factor: on the map's mean where it is set; the product is the score.

    Returns:
        Masks of low score.
    """
    fine = functional.interpolate(
        maps, (MASK_SIDE, MASK_SIDE), mode="bilinear", align_corners=False
    )
    cells = fine > thresholds[..., None, None]
    count = cells.sum(dim=(-2, -1))
    # A GPU may add in another order when there are more maps; float16 shows nothing of it then.
    means = (fine.double() * cells).sum(dim=(-2, -1)).float() / count.clamp(min=1)
    small = count <= max_area * MASK_SIDE**2
    return SlotMasks(cells & small[..., None, None], score_factor * means)


def select_actors(actors: Tensor, objects: Tensor, valid: Tensor | None = None) -> Tensor:
    """Which of a frame's actors act: those that touch an object, else the largest two.

    Args:
        actors: (..., K, 128, 128) bool.
        objects: (..., 128, 128) bool. Union of a frame's objects.
        valid: (..., K) bool. Which actors there are; None: all.

    Returns:
        (..., K) bool. Of equally large ones, the earlier.
    """
    near = functional.max_pool2d(objects.unsqueeze(-3).float(), 3, 1, 1) > 0
    touching, areas = (actors & near).any(dim=(-2, -1)), actors.sum(dim=(-2, -1))
    if valid is not None:
        touching, areas = touching & valid, torch.where(valid, areas, -1)
    order = areas.argsort(dim=-1, descending=True, stable=True)
    largest = order.argsort(dim=-1) < MAX_LOOSE_ACTORS
    acting = torch.where(touching.any(dim=-1, keepdim=True), touching, largest)
    return acting if valid is None else acting & valid


def unite(instances: Tensor, scores: Tensor, otherwise: SlotMasks) -> SlotMasks:
    """Unite the instances of each frame and slot; of the actors in slot 0, those who act.

    Args:
        instances: (B, S, K, 128, 128) bool.
        scores: (B, S, K) float. 0 where there is no instance.
        otherwise: what stands in for a slot without an instance.

    Returns:
        The unions, each with the mean score of its instances.
    """
    valid = scores > 0
    objects = _united(instances[:, 1:], valid[:, 1:], otherwise.cells[:, 1:])
    acting = select_actors(instances[:, 0], objects.any(dim=1), valid[:, 0])
    valid = torch.cat([acting[:, None], valid[:, 1:]], dim=1)
    actor = _united(instances[:, :1], valid[:, :1], otherwise.cells[:, :1])
    means = (scores.double() * valid).sum(dim=2).float() / valid.sum(dim=2).clamp(min=1)
    return SlotMasks(
        torch.cat([actor, objects], dim=1),
        torch.where(valid.any(dim=2), means, otherwise.score),
    )


def _united(instances: Tensor, valid: Tensor, otherwise: Tensor) -> Tensor:
    united = (instances & valid[..., None, None]).any(dim=2)
    return torch.where(valid.any(dim=2)[..., None, None], united, otherwise)
