"""Connected components of many maps at once, and the strongest few as boxes and peaks.

Shape letters: M maps, gh x gw cells, K components per map.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Components(NamedTuple):
    """Components of one kind over a batch of maps, strongest first within a map; P in all."""

    map_index: Tensor
    """(P,) int64. The map each belongs to, ascending."""
    cells: Tensor
    """(P, gh, gw) bool."""
    boxes: Tensor
    """(P, 4) float. x0, y0, x1, y1 as shares of the frame, half a cell larger on each side."""
    peaks: Tensor
    """(P, 2) float. x, y of the centre of the strongest cell, as shares of the frame."""
    peak_values: Tensor
    """(P,) float. The largest value of the map in the component."""


def label_components(masks: Tensor) -> Tensor:
    """Label 8-connected components.

    Every set cell starts with its own number. Taking the largest number among the neighbours, then
    the number held by the cell that this number names, until nothing changes, leaves each component
    with the largest number in it.

    Args:
        masks: (M, gh, gw) bool.

    Returns:
        (M, gh, gw) int64. 0 where unset, else one number above 0 per component of a map.
    """
    num_maps, height, width = masks.shape
    numbers = torch.arange(1, height * width + 1, device=masks.device).view(1, height, width)
    labels = numbers * masks
    while True:
        # Numbers stay exact in float32 up to 2**24 cells, and max_pool2d takes no integers on CUDA.
        spread = functional.max_pool2d(labels[:, None].float(), 3, 1, 1)[:, 0].long() * masks
        flat = functional.pad(spread.flatten(1), (1, 0))
        jumped = flat.gather(1, flat[:, 1:]).view(num_maps, height, width)
        if torch.equal(jumped, labels):
            return labels
        labels = jumped


def strongest_components(maps: Tensor, thresholds: Tensor, count: int) -> Components:
    """Find the ``count`` components of largest mass in each map.

    Args:
        maps: (M, gh, gw) float in [0, 1].
        thresholds: (M,) float. A cell belongs to a component where the map is above.
        count: components kept per map, at most; of equal ones, the upper ones.

    Returns:
        The components; none for a map that nowhere exceeds its threshold.
    """
    num_maps, height, width = maps.shape
    labels = label_components(maps > thresholds[:, None, None])
    mass = torch.zeros(num_maps, height * width + 1, device=maps.device)
    mass.scatter_add_(1, labels.flatten(1), maps.float().flatten(1))
    mass[:, 0] = 0
    ranked = mass.sort(dim=1, descending=True, stable=True)
    values, numbers = ranked.values[:, :count], ranked.indices[:, :count]
    map_index, rank = (values > 0).nonzero(as_tuple=True)
    cells = labels[map_index] == numbers[map_index, rank][:, None, None]
    inside = maps[map_index] * cells
    # A saturated map has its largest value all over; the mean of 3 x 3 keeps off the border.
    surroundings = functional.avg_pool2d(inside[:, None], 3, 1, 1)[:, 0]
    peak = (inside * surroundings).flatten(1).argmax(dim=1)
    peaks = torch.stack([(peak % width + 0.5) / width, (peak // width + 0.5) / height], dim=1)
    return Components(map_index, cells, _boxes(cells), peaks, inside.amax(dim=(-2, -1)))


def _boxes(cells: Tensor) -> Tensor:
    """(P, 4) bounding boxes as shares of the map, half a cell larger, within [0, 1]."""
    sides = []
    for axis in (2, 1):
        length = cells.shape[axis]
        occupied = cells.any(dim=3 - axis)
        first = occupied.int().argmax(dim=1)
        last = length - occupied.flip(1).int().argmax(dim=1)
        sides.append(((first - 0.5) / length, (last + 0.5) / length))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1).clamp(0, 1)
