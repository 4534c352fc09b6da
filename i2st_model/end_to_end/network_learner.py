"""I2ST on an encoder that trains with it, as something that `train` trains.

The stem, which centres and rotates tokens, is fitted once, to tokens of the initial encoder, and
fixed from then on: what moves is the encoder below it and the network above.

Shape letters: B clips of a pool, T frames, M global tokens, D features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.end_to_end.frame_data import FrameBatch
from i2st_model.end_to_end.frame_learner import EndToEnd, FrameLearner
from i2st_model.features import FeatureStore
from i2st_model.network import build_network
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Losses, RatedParameters
from i2st_model.training.mask_sources import masks_wanted
from i2st_model.training.precision import compiled, encoding
from i2st_model.training.setup import fit_stem, network_config_for
from i2st_model.training.token_learner import network_losses, network_rates


class NetworkOnFrames(FrameLearner):
    """I2ST and the encoder under it.

    Args:
        config: the run's settings.
        store: frames of the dataset; see `FrameLearner`.
        classes: the train classes, in the order of the base-class head.
        device: where everything is computed.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        super().__init__(config, store, classes=classes, device=device)
        self.head = build_network(network_config_for(config, store, len(classes))).to(device)
        self.mask_side = self.head.config.mask_side
        masks_wanted(config, store, self.mask_side)  # refuse before a run is recorded
        self.network = EndToEnd(self.encoder, self.head)
        self._encode = compiled(config, self.head.encode)

    def rated_parameters(self) -> list[RatedParameters]:
        """The network's two groups, and the encoder."""
        return [*network_rates(self.config, self.head), self.encoder_rate()]

    def begin(self) -> None:
        """Fit the stem to the initial encoder's tokens of the train classes."""
        fit_stem(self.config, self.store, self.head, self.train_rows())

    def losses(self, batch: FrameBatch) -> Losses:
        """Episode, base-class and mask loss; see `network_losses`."""
        with encoding(self.config, self.device):
            tokens, embedding = self.network.features(batch.views)
        # Apart: the centre cancels most of a token, which bfloat16 would not survive.
        stem_tokens = self.head.stem(tokens.float(), embedding.float())
        with encoding(self.config, self.device):
            encoded = self._encode(stem_tokens, with_masks=batch.masks is not None)
        return network_losses(self, self.config, encoded, batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Map the test views of videos to ``local`` (B, T, D) and ``global`` (B, M, D)."""
        return self.head(*self.seen(rows), with_masks=False).descriptors

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors: (E, Q, N) logits."""
        return self.head.logits(query, support)

    def description(self) -> dict[str, Any]:
        """The network's config; the encoder's is part of the train config."""
        return {"network": self.head.config.to_dict()}
