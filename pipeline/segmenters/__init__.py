"""Text-guided segmenters: frames and prompts -> bit-packed masks of actor and objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Video
from pipeline.prompts import PromptSet

MASK_SIDE = 128
NUM_SLOTS = 4
"""Slot 0 is the actor, slots 1..3 are objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipToSegment:
    """One clip as a segmenter sees it."""

    video: Video
    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB, the whole frame at the video's own size."""
    frame_indices: NDArray[np.int32]
    """(F,) which decoded frames these are."""
    num_frames_decoded: int
    prompts: PromptSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Masks of one clip over the full frame, 128 x 128 cells, bit-packed in np.packbits order."""

    bits: NDArray[np.uint8]
    """(F, S, 2048)."""
    found: NDArray[np.bool_]
    """(F, S); False means "no supervision", never "empty mask"."""
    score: NDArray[np.float16]
    """(F, S) in [0, 1]; 1 for masks that were given."""


class Segmenter(Protocol):
    """Finds the instances that a prompt names."""

    name: str

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the masks: backend, sha256 of weights, sizes, thresholds, templates."""
        ...

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Masks of each clip, independent of the other clips in the call.

        Raises:
            VideoError: a clip's masks are unusable (reason ``masks``).
        """
        ...
