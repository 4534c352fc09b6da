"""A store of encoded frames that encodes no frame but those asked for.

Shape letters: B clips, T frames of a clip, L grid cells, C token channels, E embedding channels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.features import FeatureStore
from i2st_model.methods import Features


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

    def train_mean(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Mean over a sample of frames, since each costs a run of the encoder: (E,) float32."""
        sample = self.embedding_sample(rows, seed=seed, max_frames=max_frames)
        return sample.double().mean(dim=0).float()
