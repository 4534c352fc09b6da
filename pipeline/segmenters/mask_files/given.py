"""Masks of one video as a file gives them, and what every form of file must satisfy.

Shape letters: F frames asked for, S slots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenters import NUM_SLOTS

MAX_FILE_BYTES = 1 << 30
"""Of one array or one JSON file after decompression: 4,100 packed frames of 1080p."""
MAX_PIXELS = 1 << 25
"""Of one mask: 8K video."""


class MaskFileError(ValueError):
    """A mask file does not fit its form or its video; the message says what and what was needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenMasks:
    """Masks of one video for the frames that were asked for."""

    pixels: NDArray[np.bool_]
    """(F, S, H, W)."""
    found: NDArray[np.bool_]
    """(F, S). False where the file has no mask for that frame and slot, or says not found."""
    score: NDArray[np.float32]
    """(F, S) in [0, 1]; 1 unless the file says otherwise."""


def empty_masks(num_rows: int, height: int, width: int) -> GivenMasks:
    """Masks of no frame and no slot yet, to be filled in by a reader."""
    return GivenMasks(
        pixels=np.zeros((num_rows, NUM_SLOTS, height, width), np.bool_),
        found=np.zeros((num_rows, NUM_SLOTS), np.bool_),
        score=np.ones((num_rows, NUM_SLOTS), np.float32),
    )


def check_size(height: int, width: int) -> None:
    """Refuse masks without pixels or with too many."""
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise MaskFileError(f"masks of {height} x {width}; needed 1 to {MAX_PIXELS} pixels")


def check_count(claimed: int, num_frames: int) -> None:
    """Refuse masks made for another number of frames than decode."""
    if claimed != num_frames:
        raise MaskFileError(
            f"masks of {claimed} frames; needed {num_frames}, the frames that decode"
        )
