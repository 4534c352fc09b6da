"""Clips of a store of frames: JPEG rows -> views, decoded on several threads.

Shape letters: B clips, F stored frames, T frames of a clip, S side of the view in pixels.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from i2st_model.end_to_end.framing import Crops, Framing
from pipeline.shards.jpegs import decode_frame

MAX_THREADS = 16
"""Decoding lets go of the interpreter; beyond this, its own share is in the way."""


class JpegReader(Protocol):
    """What `FrameClips` needs of `pipeline.shards.reader.ShardReader`."""

    def jpegs(self, rows: ArrayLike) -> list[tuple[bytes, ...]]:
        """Return the F JPEG files of each row."""
        ...

    def frame_sizes(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Return (B, 2): height and width of each row's frames."""
        ...


class FrameClips:
    """Decodes and crops clips; what comes out does not depend on the number of threads.

    Args:
        reader: the store of frames.
        framing: how a frame is shown.
        threads: that decode; None = one per core, 16 at most.
    """

    def __init__(self, reader: JpegReader, framing: Framing, *, threads: int | None = None) -> None:
        self.framing = framing
        self._reader = reader
        self._threads = threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None

    def clips(
        self, rows: NDArray[np.int64], positions: NDArray[np.integer], crops: Crops
    ) -> Tensor:
        """Decode clips.

        Args:
            rows: (B,) rows of videos.
            positions: (B, T) which stored frames form each clip.
            crops: what each clip shows.

        Returns:
            (B, T, S, S, 3) uint8 RGB on the CPU.

        Raises:
            ShardError: the shards hold no frames, or a frame does not decode.
        """
        files = self._reader.jpegs(rows)
        sizes = [(int(height), int(width)) for height, width in self._reader.frame_sizes(rows)]
        side = self.framing.image_size
        views = np.empty((*positions.shape, side, side, 3), np.uint8)

        def show(place: tuple[int, int]) -> None:
            clip, frame = place
            image = decode_frame(files[clip][positions[place]], sizes[clip])
            views[place] = self.framing.view(image, crops, clip)

        for _ in self._workers().map(show, np.ndindex(*positions.shape)):
            pass
        return torch.from_numpy(views)

    def _workers(self) -> ThreadPoolExecutor:
        # Made on first use: threads do not survive a fork.
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        return self._pool
