"""Clips of one shape side by side on the device.

Shape letters: C clips of a batch, F frames of each, B = C * F.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.segmenters import ClipToSegment
from pipeline.segmenters.mask_packing import upload
from pipeline.segmenters.sam_clip.text_bank import PromptText, TextBank


class ClipBatch(NamedTuple):
    """Clips with as many frames, of the same size."""

    places: list[int]
    """(C,) where each clip stands in the call."""
    frames: Tensor
    """(B, H, W, 3) uint8, clip after clip."""
    texts: list[PromptText]
    """(C,) of each clip."""

    @property
    def num_frames(self) -> int:
        """Frames of each clip, F."""
        return len(self.frames) // len(self.texts)


def batches_of(
    clips: Sequence[ClipToSegment], bank: TextBank, device: torch.device
) -> Iterator[ClipBatch]:
    """Sort clips by the shape of their frames, and move each shape's to the device together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, clip in enumerate(clips):
        places.setdefault(clip.frames.shape, []).append(place)
    for alike in places.values():
        frames = np.concatenate([clips[place].frames for place in alike])
        texts = [bank.prompt(clips[place].prompts) for place in alike]
        yield ClipBatch(alike, upload(frames, device), texts)
