"""Masks on 128 x 128 cells over the full frame: pool, pack, cover a grid, decode COCO runs.

Shape letters: S slots, H and W pixels of a frame, G cells along one side of a grid.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenters import MASK_BYTES, MASK_SIDE

# A cell that is covered by exactly one half must not count as covered through rounding of the sum.
_ROUNDING = 1e-9


def area_weights(
    num_cells: int, size: int, extent: float | None = None, start: float = 0.0
) -> NDArray[np.float64]:
    """Share of each equal cell of an interval that each unit pixel covers.

    ``area_weights(a, H) @ image @ area_weights(b, W).T`` averages an image over a x b cells of
    equal area exactly, whether the cells are larger or smaller than the pixels.

    Args:
        num_cells: cells that divide the interval.
        size: pixels along the axis.
        extent: length in pixels of the interval that the cells divide; None reaches to the end.
            Shorter where a picture was padded or cropped, and then it may be fractional.
        start: where the interval begins, in pixels.

    Returns:
        (num_cells, size). Rows sum to 1.

    Raises:
        ValueError: the interval is empty or longer than the axis.
    """
    length = size - start if extent is None else extent
    if length <= 0 or start < 0 or start + length > size + _ROUNDING:
        raise ValueError(
            f"extent is {length} pixels; needed above 0 and at most size={size} from start={start}"
        )
    edges = np.linspace(start, start + length, num_cells + 1)
    pixels = np.arange(size, dtype=np.float64)
    upper = np.minimum(edges[1:, None], pixels + 1)
    lower = np.maximum(edges[:-1, None], pixels)
    return np.maximum(upper - lower, 0.0) * (num_cells / length)


def pool_masks(masks: NDArray[np.bool_], side: int = MASK_SIDE) -> NDArray[np.bool_]:
    """Reduce masks of any size to ``side`` x ``side`` cells: set where more than half is covered.

    Args:
        masks: (..., H, W) bool.
        side: cells along each axis.

    Returns:
        (..., side, side) bool.
    """
    height, width = masks.shape[-2:]
    rows, columns = area_weights(side, height), area_weights(side, width)
    return rows @ masks.astype(np.float64) @ columns.T > 0.5 + _ROUNDING


def pack_masks(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bit-pack (..., 128, 128) bool masks, row-major, to (..., 2048) bytes in np.packbits order."""
    if masks.shape[-2:] != (MASK_SIDE, MASK_SIDE):
        raise ValueError(f"masks end in {masks.shape[-2:]}; needed {(MASK_SIDE, MASK_SIDE)}")
    return np.packbits(masks.reshape(*masks.shape[:-2], -1), axis=-1)


def unpack_masks(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Undo pack_masks: (..., 2048) bytes to (..., 128, 128) bool."""
    if bits.shape[-1] != MASK_BYTES:
        raise ValueError(f"packed masks end in {bits.shape[-1]} bytes; needed {MASK_BYTES}")
    unpacked = np.unpackbits(bits, axis=-1).astype(np.bool_)
    return unpacked.reshape(*bits.shape[:-1], MASK_SIDE, MASK_SIDE)


def grid_coverage(
    bits: NDArray[np.uint8],
    found: NDArray[np.bool_],
    grid: int,
    window: slice = slice(0, MASK_SIDE),
) -> NDArray[np.float32]:
    """Share of each grid cell that the union of the found slots covers.

    Args:
        bits: (..., S, 2048) uint8, packed masks over the full frame.
        found: (..., S) bool. Slots that are not found add nothing.
        grid: cells along each axis of the result.
        window: rows, and equally columns, of the 128 cells that the encoder's view shows.

    Returns:
        (..., grid, grid) float32 in [0, 1]. Zeros where no slot is found: the caller leaves such
        frames out, since "not found" means no supervision.
    """
    seen = unpack_masks(union_of_slots(bits, found))[..., window, window]
    weights = area_weights(grid, seen.shape[-1]).astype(np.float32)
    return weights @ seen.astype(np.float32) @ weights.T


def union_of_slots(bits: NDArray[np.uint8], found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Unite the found ones of (..., S, 2048) packed masks, (..., S) found: (..., 2048) packed."""
    union: NDArray[np.uint8] = np.bitwise_or.reduce(np.where(found[..., None], bits, 0), axis=-2)
    return union.astype(np.uint8, copy=False)


def decode_coco_rle(
    counts: str | bytes | Sequence[int], height: int, width: int
) -> NDArray[np.bool_]:
    """Decode one COCO run-length mask.

    Runs alternate between unset and set pixels, start with unset, and go down the columns
    (https://github.com/cocodataset/cocoapi, common/maskApi.c). A string holds each run as
    little-endian groups of 5 bits plus a continuation bit, offset by 48; from the fourth run on it
    holds the difference to the run two places before.

    Args:
        counts: compressed string, or the runs themselves.
        height: pixels.
        width: pixels.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: a run is negative, or the runs do not add up to height x width.
    """
    runs = _expand_counts(counts) if isinstance(counts, (str, bytes)) else [int(c) for c in counts]
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"runs add up to {sum(runs)} pixels; needed {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _expand_counts(counts: str | bytes) -> list[int]:
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    runs: list[int] = []
    value, shift = 0, 0
    for byte in text:
        group = byte - 48
        if not 0 <= group < 64 or shift > 35:
            raise ValueError(f"byte {byte} in run lengths; needed 48 to 111, 8 bytes a run at most")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs
