"""Exact decoding of a few frames of a video, behind one Protocol, run in children that can be killed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FrameChooser = Callable[[int], Sequence[int]]
"""Number of frames that really decode -> indices in presentation order; see pipeline.clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """Frames of one video, and what the decoder noticed on the way."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB at the video's own size, rotated as the container asks."""
    frame_indices: NDArray[np.int32]
    """(F,) presentation-order indices into the frames that really decode; may repeat."""
    num_frames_decoded: int
    """Frames that really decode."""
    num_frames_expected: int
    """Frames the file should hold: its packets, or its index where the file is cut short."""
    num_damaged_packets: int
    """Packets the codec refused."""


class Decoder(Protocol):
    """Reads chosen frames of one file."""

    name: str

    def version(self) -> str:
        """Versions that decide the pixels, e.g. ``pyav 18.1.0, libavcodec 62.11.100``."""
        ...

    def read(self, path: Path, choose: FrameChooser) -> DecodedClip:
        """Decode the frames that ``choose`` picks.

        Raises:
            VideoError: nothing usable decodes.
        """
        ...
