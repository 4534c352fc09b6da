"""What every decoder takes and gives."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.clips import FrameChooser

MAX_PIXELS = 8192 * 8192
"""Our choice: 8K video has 33 million pixels, a hostile header claims billions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """Frames of one video, and what the decoder noticed on the way."""

    frames: NDArray[np.uint8] = field(repr=False)
    """(F, H, W, 3) RGB at the video's own size, turned as the container asks."""
    frame_indices: NDArray[np.int32]
    """(F,) presentation-order indices into the frames that really decode; may repeat."""
    num_frames_decoded: int
    """Frames that really decode."""
    num_frames_expected: int
    """Frames the file should hold: its packets, or its index where the file is cut short."""
    num_damaged_packets: int
    """Packets that the codec refused, or could decode only by concealing what is missing."""

    def split(self, num_phases: int) -> list["DecodedClip"]:
        """Divide a clip whose frames were chosen in several phases into one clip per phase."""
        return [
            replace(self, frames=frames, frame_indices=indices)
            for frames, indices in zip(
                np.split(self.frames, num_phases),
                np.split(self.frame_indices, num_phases),
                strict=True,
            )
        ]


class Decoder(Protocol):
    """Reads chosen frames of one file."""

    name: str

    def version(self) -> str:
        """Versions that decide the pixels, e.g. ``pyav 18.1.0, libavcodec 62.28.102``."""
        ...

    def read(self, path: Path, choose: FrameChooser) -> DecodedClip:
        """Decode the frames that ``choose`` picks.

        Args:
            path: a video file.
            choose: number of frames that decode -> indices.

        Returns:
            The frames, in the order of the indices.

        Raises:
            VideoError: nothing usable decodes.
        """
        ...
