"""I2ST on an encoder that trains with it, as something that `train` trains.

The stem, which centres and rotates tokens, is fitted once, to tokens of the initial encoder, and
fixed from then on: what moves is the encoder below it and the network above.

Shape letters: B clips of a pool, T frames, S side of the view in pixels, L grid cells, C token
channels, E embedding channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.class_videos import ClassVideos
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.frame_data import FrameBatch, FrameData
from i2st_model.end_to_end.trainable import TrainableEncoder
from i2st_model.features import FeatureStore
from i2st_model.network import I2STNetwork, build_network
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner, Losses, RatedParameters
from i2st_model.training.mask_sources import masks_wanted
from i2st_model.training.pools import Pool
from i2st_model.training.precision import encoding
from i2st_model.training.setup import fit_stem, network_config_for
from i2st_model.training.token_learner import network_losses, network_rates


class EndToEnd(nn.Module):
    """An encoder and the network on its tokens; the names of both are those of the checkpoint."""

    def __init__(self, encoder: TrainableEncoder, head: I2STNetwork) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def stem_tokens(self, views: Tensor) -> Tensor:
        """Encode clips up to the stem.

        Args:
            views: (B, T, S, S, 3) uint8 RGB.

        Returns:
            (B, T, L, P) float32 with gradients, and the image token where the stem makes one.
        """
        tokens, embedding = self.encoder(views.flatten(0, 1))
        frames = views.shape[:2]
        stem_tokens: Tensor = self.head.stem(
            tokens.unflatten(0, frames), embedding.unflatten(0, frames)
        )
        return stem_tokens


class FrameLearner(Learner):
    """A network and the encoder under it.

    Args:
        config: the run's settings.
        store: frames of the dataset, read through the encoder of ``config.encoder``; that encoder
            is put back to its initial weights, and trained.
        classes: the train classes, in the order of the base-class head.
        device: where everything is computed.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """

    network: EndToEnd

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
        self._reader, self._classes = store.reader, classes
        head = build_network(network_config_for(config, store, len(classes)))
        masks_wanted(config, store, head.config.mask_side)  # refuse before a run is recorded
        self._reader.encoder.frozen.to(device)
        self._reader.encoder.reset()
        self._reader.weights_of = None
        self.network = EndToEnd(self._reader.encoder, head.to(device))

    def rated_parameters(self) -> list[RatedParameters]:
        """The network's two groups, and the encoder at a rate of its own."""
        encoder = self.network.encoder
        trained = RatedParameters(
            parameters=list(encoder.trained.values()), rate=encoder.config.rate
        )
        return [*network_rates(self.config, self.network.head), trained]

    def begin(self) -> None:
        """Fit the stem to the initial encoder's tokens of the train classes."""
        names = self.store.reader.class_names
        rows = self.store.rows_of([names[videos.number] for videos in self._classes])
        fit_stem(self.config, self.store, self.network.head, rows)

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Find the masks that supervise; nothing is kept, since the encoder changes."""
        self._data = FrameData(
            self.config,
            self.store,
            self._reader,
            train_classes=[videos.number for videos in self._classes],
            mask_side=self.network.head.config.mask_side,
            device=self.device,
        )

    def batch(self, pool: Pool, number: int) -> FrameBatch:
        """Views in random crops, masks and base classes of a pool's clips."""
        return self._data.batch(pool, number)

    def losses(self, batch: FrameBatch) -> Losses:
        """Episode, base-class and mask loss; see `network_losses`."""
        with encoding(self.config, self.device):
            stem_tokens = self.network.stem_tokens(batch.views)
            encoded = self.network.head.encode(stem_tokens, with_masks=batch.masks is not None)
        return network_losses(self, self.config, encoded, batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Map the test views of videos to ``local`` (B, T, D) and ``global`` (B, M, D)."""
        features = self._reader.encode(rows, self.store.test_positions)
        tokens = features.tokens.to(self.device).float()
        embedding = features.embedding.to(self.device).float()
        return self.network.head(tokens, embedding, with_masks=False).descriptors

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors: (E, Q, N) logits."""
        return self.network.head.logits(query, support)

    def description(self) -> dict[str, Any]:
        """The network's config; the encoder's is part of the train config."""
        return {"network": self.network.head.config.to_dict()}
