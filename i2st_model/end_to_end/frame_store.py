"""A store of encoded frames that encodes no frame but those asked for.

Shape letters: B clips, T frames of a clip, L grid cells, C token channels, E embedding channels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.features import FeatureStore
from i2st_model.methods import Features

MOST_FRAMES = 8192
"""Frames that are encoded for a mean, or for a fit to embeddings: as many as a look at 1,000 videos
of 8. Measured on JHMDB-21: the mean of 1,024 moves no accuracy by more than 0.2 points, that of
4,096 by 0.04."""


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

    def features_at(
        self, name: Features, rows: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float16]:
        """Encode some frames of videos.

        Args:
            name: which feature.
            rows: (B,) rows of videos.
            positions: (T,) or (B, T) which stored frames of each.

        Returns:
            (B, T, L, C) or (B, T, E).
        """
        encoded = self._frames.encode(rows, positions)
        chosen = encoded.tokens if name == "tokens" else encoded.embedding
        found: NDArray[np.float16] = chosen.numpy()
        return found

    def test_clips(
        self, rows: NDArray[np.int64], name: Features, *, with_embedding: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Encode clips once, whatever is taken of them; see `FeatureStore.test_clips`."""
        encoded = self._frames.encode(rows, self.test_positions)
        embedding = encoded.embedding.float()
        features = encoded.tokens.float() if name == "tokens" else embedding
        return features, embedding if with_embedding else None

    def mean_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Mean over a sample of frames, at most `MOST_FRAMES`: (E,) float32."""
        sample = self.embedding_sample(rows, seed=0, max_frames=MOST_FRAMES)
        return sample.double().mean(dim=0).float()

    def embedding_sample(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """See `FeatureStore.embedding_sample`; `MOST_FRAMES` is another bound."""
        most = min(max_frames, MOST_FRAMES)
        return super().embedding_sample(rows, seed=seed, max_frames=most)
