"""Masks on their way to the host: packed to bits on the device, fetched in one copy.

Shape letters: B frames, S slots.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.segmenters import MASK_BYTES, Masks


class SlotMasks(NamedTuple):
    """Masks of B frames on the device; what is empty is not found."""

    cells: Tensor
    """(B, S, 128, 128) bool."""
    score: Tensor
    """(B, S) float in [0, 1]."""


def upload(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for what the device has at hand."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pack_bits(cells: Tensor) -> Tensor:
    """Pack (..., H, W) bool, H * W a multiple of 8, to (..., H * W / 8) uint8 as np.packbits."""
    weights = 1 << torch.arange(7, -1, -1, dtype=torch.uint8, device=cells.device)
    return (cells.flatten(-2).unflatten(-1, (-1, 8)) * weights).sum(dim=-1, dtype=torch.uint8)


class Fetch:
    """Packed masks on their way to the host; begun when made, waited for when asked.

    Args:
        masks: of B frames.
    """

    def __init__(self, masks: SlotMasks) -> None:
        found = masks.cells.flatten(2).any(dim=2)
        score = torch.where(found, masks.score, 0.0).half()
        bytes_of = [
            pack_bits(masks.cells),
            found[..., None].byte(),
            score[..., None].view(torch.uint8),
        ]
        packed = torch.cat(bytes_of, dim=-1)
        self._arrived: torch.cuda.Event | None = None
        if packed.is_cuda:
            host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            self._packed = host.copy_(packed, non_blocking=True)
            self._arrived = torch.cuda.Event()
            # By itself it takes the current GPU, which need not be the one that copies.
            self._arrived.record(torch.cuda.current_stream(packed.device))
        else:
            self._packed = packed

    def masks(self, num_frames: int) -> list[Masks]:
        """Wait for the copy; masks of each clip of ``num_frames`` frames in turn."""
        if self._arrived is not None:
            self._arrived.synchronize()
        # Copies, so that what a caller keeps holds no pinned memory and no neighbour.
        return [_masks_of(clip.numpy().copy()) for clip in self._packed.split(num_frames)]


def _masks_of(packed: NDArray[np.uint8]) -> Masks:
    """Take (F, S, 2048 + 1 + 2) bytes apart: bits, found, score."""
    bits, found, score = np.split(packed, [MASK_BYTES, MASK_BYTES + 1], axis=-1)
    return Masks(
        bits=np.ascontiguousarray(bits),
        found=found[..., 0].astype(np.bool_),
        score=np.ascontiguousarray(score).view(np.float16)[..., 0],
    )
