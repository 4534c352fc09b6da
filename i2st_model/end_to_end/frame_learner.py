"""What all learners on frames share: an encoder that trains, and clips for it.

Shape letters: B clips of a pool, T frames, S side of the view in pixels, L grid cells, C token
channels, E embedding channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.frame_data import FrameBatch, FrameData
from i2st_model.end_to_end.trainable import TrainableEncoder
from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner, RatedParameters
from i2st_model.training.pools import Pool


class EndToEnd(nn.Module):
    """An encoder and what stands on its features; both names are those in the checkpoint."""

    def __init__(self, encoder: TrainableEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def features(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, T, S, S, 3) uint8 views: tokens (B, T, L, C), embeddings (B, T, E) float32."""
        tokens, embedding = self.encoder(views.flatten(0, 1))
        frames = views.shape[:2]
        return tokens.unflatten(0, frames), embedding.unflatten(0, frames)


class FrameLearner(Learner):
    """Trains an encoder; a subclass says what stands on it.

    ``compile`` reaches what stands on the encoder alone: compiling a small ResNet took minutes.

    Args:
        config: the run's settings.
        store: frames of the dataset, read through the encoder of ``config.encoder``; that encoder
            is put back to its initial weights, and trained.
        classes: the train classes, in the order of a base-class head.
        device: where everything is computed.
    """

    network: EndToEnd
    mask_side = 0
    """Of the mask targets; 0 where nothing makes masks."""

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        assert isinstance(store.reader, EncodedFrames)
        self.config, self.store, self.device = config, store, device
        self.reader, self.classes = store.reader, classes
        self.encoder = store.reader.encoder
        self.encoder.frozen.to(device)
        self.encoder.reset()
        self.reader.weights_of = None

    def encoder_rate(self) -> RatedParameters:
        """The encoder's weights, at a rate of their own."""
        return RatedParameters(
            parameters=list(self.encoder.trained.values()), rate=self.encoder.config.rate
        )

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Find the masks that supervise; nothing is kept, since the encoder changes."""
        self._data = FrameData(
            self.config,
            self.store,
            self.reader,
            train_classes=[videos.number for videos in self.classes],
            mask_side=self.mask_side,
            device=self.device,
        )

    def batch(self, pool: Pool, number: int) -> FrameBatch:
        """Views in random crops, masks and base classes of a pool's clips."""
        return self._data.batch(pool, number)

    def train_rows(self) -> NDArray[np.int64]:
        """Rows of all videos of the train classes."""
        names = self.store.reader.class_names
        return self.store.rows_of([names[videos.number] for videos in self.classes])

    def seen(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Encode the test views of videos: tokens and embeddings as `EndToEnd.features`."""
        features = self.reader.encode(rows, self.store.test_positions)
        return (
            features.tokens.to(self.device).float(),
            features.embedding.to(self.device).float(),
        )
