"""A store of encoded frames that encodes no frame but those asked for.

Shape letters: B clips, T frames of a clip, L grid cells, C token channels, E embedding channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.features import FeatureStore


class FrameStore(FeatureStore):
    """What a `FeatureStore` over the same reader gives, without encoding all stored frames.

    Args:
        frames: the reader.
        num_frames: T, frames of a clip; all stored frames unless given.

    Raises:
        ConfigError: more frames are asked for than are stored.
    """

    def __init__(self, frames: EncodedFrames, *, num_frames: int | None = None) -> None:
        super().__init__(frames, num_frames=num_frames)
        self._frames = frames

    def tokens(self, rows: NDArray[np.int64], positions: NDArray[np.int64] | None = None) -> Tensor:
        """Tokens of clips.

        Args:
            rows: (B,) rows of videos.
            positions: (B, T) which stored frames form each clip; segment centres unless given.

        Returns:
            (B, T, L, C) float32.
        """
        chosen = self.test_positions if positions is None else positions
        return self._frames.encode(rows, chosen).tokens.float()

    def frame_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Encoder's own embedding of the segment centres of each clip: (B, T, E) float32."""
        return self._frames.encode(rows, self.test_positions).embedding.float()

    def train_mean(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Mean over a sample of frames: (E,) float32."""
        sample = self.embedding_sample(rows, seed=seed, max_frames=max_frames)
        return sample.double().mean(dim=0).float()

    def token_sample(self, rows: NDArray[np.int64], *, seed: int, max_tokens: int) -> Tensor:
        """Tokens of whole frames; the draw of `FeatureStore.token_sample`.

        Args:
            rows: (B,) rows of the videos to draw from.
            seed: 0 .. 2**64 - 1.
            max_tokens: bound on the number of tokens.

        Returns:
            (n, C) float32, n at most ``max_tokens`` (at least one frame).
        """
        most = max(1, max_tokens // self.index.num_tokens)
        kept = [
            self._frames.encode(row, np.array(chosen)).tokens.flatten(0, 2)
            for row, chosen in self._drawn_frames(rows, seed, most)
        ]
        return torch.cat(kept).float()

    def embedding_sample(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Frame embeddings; the draw of `FeatureStore.embedding_sample`.

        Args:
            rows: (B,) rows of the videos to draw from.
            seed: 0 .. 2**64 - 1.
            max_frames: bound on their number.

        Returns:
            (n, E) float32, n at most ``max_frames``.
        """
        kept = [
            self._frames.encode(row, np.array(chosen)).embedding.flatten(0, 1)
            for row, chosen in self._drawn_frames(rows, seed, max_frames)
        ]
        return torch.cat(kept).float()
