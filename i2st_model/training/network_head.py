"""I2ST as something that learns: its losses, its two rates, and the stem that is fitted once.

Shape letters: B clips, T frames, M global tokens, D features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.encoded import Encoded
from i2st_model.losses import base_class_loss, mask_loss
from i2st_model.network import I2STNetwork, build_network
from i2st_model.stem_features import StemFeatures
from i2st_model.training.data import Batch
from i2st_model.training.head import Ground, Head
from i2st_model.training.mask_sources import masks_wanted
from i2st_model.training.pool_losses import Losses, RatedParameters, episode_terms
from i2st_model.training.precision import compiled, encoding, widened
from i2st_model.training.setup import fit_stem, network_config_for


class NetworkHead(Head):
    """A network whose stem is fitted once and whose other parts train; what it sees is stem tokens.

    On an encoder that trains, the stem is that of the initial encoder's tokens: what moves is the
    encoder below it and the network above.

    Args:
        ground: what the run trains on.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """

    module: I2STNetwork

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        config, store, num_classes = self.config, self.store, len(ground.classes)
        self.module = build_network(network_config_for(config, store, num_classes)).to(self.device)
        self.mask_side = self.module.config.mask_side
        masks_wanted(config, store, self.mask_side)  # refuse before a run is recorded
        self._encode = compiled(config, self.module.encode)

    def rated_parameters(self) -> list[RatedParameters]:
        """Projection and mask decoder at the fast rate, the rest at the slow one."""
        rated = [
            RatedParameters(parameters=self.module.fast_parameters(), rate=self.config.fast_rate),
            RatedParameters(parameters=self.module.slow_parameters(), rate=self.config.slow_rate),
        ]
        return [group for group in rated if group.parameters]

    def begin(self) -> None:
        """Fit the stem to tokens of the train classes."""
        fit_stem(self.config, self.store, self.module, self.ground.rows)

    def fixed(self) -> StemFeatures:
        """The stem's outputs."""
        return StemFeatures(self.store, self.module.stem, self.device)

    def of_fixed(self, rows: NDArray[np.int64], features: Tensor) -> Tensor:
        """Take stem tokens as they are."""
        return features

    def of_encoder(self, rows: NDArray[np.int64], tokens: Tensor, embedding: Tensor) -> Tensor:
        """Put clips through the stem."""
        # Outside of autocast: the centre cancels most of a token, which bfloat16 would not survive.
        stem_tokens: Tensor = self.module.stem(tokens, embedding)
        return stem_tokens

    def losses(self, seen: Tensor, batch: Batch) -> Losses:
        """Add up ``episode + alpha base + beta mask``.

        Args:
            seen: (B, T, S, P) stem tokens.
            batch: what supervises them.

        Returns:
            The terms ``episode``, ``base`` and ``mask``, and their sum.
        """
        config = self.config
        with encoding(config, self.device):
            encoded = self._encode(seen, with_masks=batch.masks is not None)
        descriptors = {name: widened(value) for name, value in encoded.descriptors.items()}
        episode, accuracy = episode_terms(self.score, descriptors, batch.pool)
        parts = {"episode": episode, **self._supervised(encoded, batch, episode.new_zeros(()))}
        total = episode + config.alpha * parts["base"] + config.beta * parts["mask"]
        return Losses(total=total, parts=parts, accuracy=accuracy)

    def prepare(self, seen: Tensor) -> dict[str, Tensor]:
        """Map stem tokens to ``local`` (B, T, D), ``global`` (B, M, D) and the like."""
        return self.module.encode(seen, with_masks=False).descriptors

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors: (E, Q, N) logits."""
        return self.module.logits(query, support)

    def description(self) -> dict[str, Any]:
        """The network's config."""
        return {"network": self.module.config.to_dict()}

    def _supervised(self, encoded: Encoded, batch: Batch, zero: Tensor) -> dict[str, Tensor]:
        """Base-class and mask loss, 0 where nothing supervises."""
        base, mask = zero, zero
        if encoded.base_logits is not None and self.config.alpha > 0:
            base = base_class_loss(widened(encoded.base_logits), batch.base_classes)
        if encoded.mask_logits is not None and batch.masks is not None:
            mask = mask_loss(
                widened(encoded.mask_logits),
                batch.masks.coverage,
                batch.masks.valid,
                dice_weight=self.config.dice,
            )
        return {"base": base, "mask": mask}
