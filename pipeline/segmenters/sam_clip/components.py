"""Connected components of many maps at once, and the strongest few as boxes and peaks.

Shape letters: M maps, gh x gw cells, n of them, K components per map.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_MASS_UNIT = 2.0**-20


class Components(NamedTuple):
    """The K strongest components of each of M maps, strongest first; filled up where fewer are."""

    valid: Tensor
    """(M, K) bool. False for what fills up."""
    cells: Tensor
    """(M, K, gh, gw) bool."""
    boxes: Tensor
    """(M, K, 4) float. x0, y0, x1, y1 as shares of the frame, half a cell larger on each side."""
    peaks: Tensor
    """(M, K, 2) float. x, y of the centre of the strongest cell, as shares of the frame."""
    peak_values: Tensor
    """(M, K) float. The largest value of the map in the component."""


def label_components(masks: Tensor, *, fixed: bool) -> Tensor:
    """Label 8-connected components.

    Every set cell starts as a tree of its own, named by its number. A round hangs each tree under
    the largest name among its neighbours and halves the paths to the roots (FastSV: Zhang, Azad and
    Hu 2020, arXiv:1910.05971), so that the rounds grow with the logarithm of the cells even along
    a spiral: one more than log2(n) was the most seen, twice that many are run.

    Args:
        masks: (M, gh, gw) bool.
        fixed: run all rounds; False asks after each whether anything changed, for which a GPU
            would have to stop. The labels are the same.

    Returns:
        (M, gh, gw) int64. 0 where unset, else the largest number of a cell of the component.
    """
    num_maps, height, width = masks.shape
    num_cells = height * width
    inside = functional.pad(masks.flatten(1), (1, 0))
    # Name 0 stands for "no component", and is its own root.
    labels = torch.arange(num_cells + 1, device=masks.device) * inside
    for _ in range(2 * num_cells.bit_length()):
        roots = labels.gather(1, labels)
        # max_pool2d takes no integers on CUDA; float32 holds them exactly up to 2**24.
        picture = roots[:, 1:].view(num_maps, 1, height, width).float()
        around = functional.max_pool2d(picture, 3, 1, 1).long().flatten(1)
        nearby = functional.pad(around, (1, 0)) * inside
        hung = labels.scatter_reduce(1, labels, nearby, "amax")
        raised = hung.maximum(nearby)
        if not fixed and torch.equal(raised, labels):
            break
        labels = raised
    return labels[:, 1:].view(num_maps, height, width)


def strongest_components(
    maps: Tensor, thresholds: Tensor, count: int, *, fixed: bool = False
) -> Components:
    """Find the ``count`` components of largest mass in each map.

    Args:
        maps: (M, gh, gw) float in [0, 1].
        thresholds: (M,) float. A cell belongs to a component where the map is above.
        count: components kept per map, K; of equal ones, the upper ones.
        fixed: as for label_components.

    Returns:
        The components; none is valid in a map that nowhere exceeds its threshold.
    """
    height, width = maps.shape[1:]
    labels = label_components(maps > thresholds[:, None, None], fixed=fixed)
    values, numbers = _largest_masses(maps, labels, count)
    valid = values > 0
    cells = (labels[:, None] == numbers[..., None, None]) & valid[..., None, None]
    inside = maps[:, None] * cells
    # A saturated map has its largest value all over; the mean of 3 x 3 keeps off the border.
    peak = (inside * functional.avg_pool2d(inside, 3, 1, 1)).flatten(2).argmax(dim=2)
    x, y = (peak % width + 0.5) / width, (peak // width + 0.5) / height
    return Components(
        valid, cells, _boxes(cells), torch.stack([x, y], dim=-1), inside.amax(dim=(-2, -1))
    )


def _largest_masses(maps: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(M, K) sums of a map over its components, in units of 2**-20, and their labels."""
    # In integers the sum has one value, whatever order a GPU adds in.
    units = (maps.double() / _MASS_UNIT).round().long().flatten(1)
    mass = torch.zeros(len(maps), units.shape[1] + 1, dtype=torch.int64, device=maps.device)
    mass.scatter_add_(1, labels.flatten(1), units)
    mass[:, 0].zero_()
    ranked = mass.sort(dim=1, descending=True, stable=True)
    return ranked.values[:, :count], ranked.indices[:, :count]


def _boxes(cells: Tensor) -> Tensor:
    """(..., 4) bounding boxes as shares of the map, half a cell larger, within [0, 1]."""
    sides = []
    for across in (-2, -1):
        occupied = cells.any(dim=across)
        length = occupied.shape[-1]
        first = occupied.int().argmax(dim=-1)
        last = length - occupied.flip(-1).int().argmax(dim=-1)
        sides.append(((first - 0.5) / length, (last + 0.5) / length))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=-1).clamp(0, 1)
