"""SAM's embeddings of a batch of frames, made when they are asked for.

Shape letters: B frames, C channels, gh x gw cells over the frame.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters.mask_packing import upload
from pipeline.segmenters.sam.decoding import EmbeddedFrames


class Embedding(Protocol):
    """What is asked of SAM; SamDecoder answers."""

    def embed(self, frames: Tensor) -> EmbeddedFrames:
        """Embed (B, H, W, 3) uint8 frames."""
        ...


class FrameEmbedder:
    """Embeds frames of a batch when they are asked for, or all at once.

    Args:
        sam: the encoder.
        frames: (B, H, W, 3) uint8.
    """

    def __init__(self, sam: Embedding, frames: Tensor) -> None:
        self._sam, self._frames = sam, frames
        self._all: EmbeddedFrames | None = None

    def of_all(self) -> EmbeddedFrames:
        """Embeddings of the B frames, kept for ``of``."""
        if self._all is None:
            self._all = self._sam.embed(self._frames)
        return self._all

    def of(self, numbers: NDArray[np.int64]) -> EmbeddedFrames:
        """Embeddings of some frames, in the order of their numbers."""
        rows = upload(numbers, self._frames.device)
        if self._all is None:
            return self._sam.embed(self._frames.index_select(0, rows))
        return self._all._replace(embeddings=self._all.embeddings.index_select(0, rows))


def over_frame(embedded: EmbeddedFrames, mask_side: int) -> Tensor:
    """Resample embeddings, which cover a padded canvas, to cells that divide the frame evenly.

    Args:
        embedded: B frames.
        mask_side: side of the masks, in whose cells the extent is given.

    Returns:
        (B, C, gh, gw) float, with cells of nearly the same size as before.
    """
    features = embedded.embeddings
    shares = [length / mask_side for length in embedded.extent]
    grid = [max(1, round(s * n)) for s, n in zip(shares, features.shape[2:], strict=True)]
    y, x = (
        (torch.arange(count, device=features.device) + 0.5) / count * (2 * share) - 1
        for count, share in zip(grid, shares, strict=True)
    )
    points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    return functional.grid_sample(
        features,
        points.expand(len(features), -1, -1, -1),
        padding_mode="border",
        align_corners=False,
    )
