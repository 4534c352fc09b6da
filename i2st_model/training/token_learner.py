"""I2ST on cached tokens, as something that `train` trains.

Shape letters: B clips of a pool, T frames, L grid cells, P stem channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.encoded import Encoded
from i2st_model.features import FeatureStore
from i2st_model.losses import base_class_loss, mask_loss
from i2st_model.network import I2STNetwork, build_network
from i2st_model.stem_features import StemFeatures
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import TrainBatch, TrainData
from i2st_model.training.learner import Learner, Losses, RatedParameters, episode_terms
from i2st_model.training.mask_sources import MaskTargets, masks_wanted
from i2st_model.training.pools import Pool
from i2st_model.training.precision import compiled, encoding
from i2st_model.training.setup import fit_stem, network_config_for

GIB = 1 << 30


class Supervision(Protocol):
    """What of a batch the losses need."""

    @property
    def pool(self) -> Pool:
        """The episodes."""
        ...

    @property
    def masks(self) -> MaskTargets | None:
        """None where none supervise."""
        ...

    @property
    def base_classes(self) -> Tensor:
        """(B,) int64. Position of each clip's class among the train classes."""
        ...


class TokenLearner(Learner):
    """A network whose stem is fitted once and whose other parts train.

    Args:
        config: the run's settings.
        store: features of the dataset.
        classes: the train classes, in the order of the base-class head.
        device: where everything is computed.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """

    network: I2STNetwork

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        self.config, self.store, self.device = config, store, device
        self._classes = classes
        network = build_network(network_config_for(config, store, len(classes)))
        masks_wanted(config, store, network.config.mask_side)  # refuse before a run is recorded
        self.network = network.to(device)
        self._encode = compiled(config, self.network.encode)

    def rated_parameters(self) -> list[RatedParameters]:
        """Projection and mask decoder at the fast rate, the rest at the slow one."""
        return network_rates(self.config, self.network)

    def begin(self) -> None:
        """Fit the stem to tokens of the train classes."""
        fit_stem(self.config, self.store, self.network, self._rows())

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Compute the stem's outputs of train and val videos, as far as memory allows."""
        self._data = TrainData(
            self.config,
            self.store,
            stem_features=self._stem_features(self._rows(), with_views=self.config.views == "all"),
            train_classes=[videos.number for videos in self._classes],
            mask_side=self.network.config.mask_side,
            device=self.device,
        )
        self._val_features = self._stem_features(val_rows) if len(val_rows) else None

    def batch(self, pool: Pool, number: int) -> TrainBatch:
        """Stem tokens in random views, masks and base classes of a pool's clips."""
        return self._data.batch(pool, number)

    def losses(self, batch: TrainBatch) -> Losses:
        """Episode, base-class and mask loss; see `network_losses`."""
        with encoding(self.config, self.device):
            encoded = self._encode(batch.stem_tokens, with_masks=batch.masks is not None)
        return network_losses(self, self.config, encoded, batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Map videos, seen as at test time, to ``local`` (B, T, D) and ``global`` (B, M, D)."""
        assert self._val_features is not None
        return self.network.encode(self._val_features.clips(rows), with_masks=False).descriptors

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors: (E, Q, N) logits."""
        return self.network.logits(query, support)

    def description(self) -> dict[str, Any]:
        """The network's config."""
        return {"network": self.network.config.to_dict()}

    def _rows(self) -> NDArray[np.int64]:
        names = self.store.reader.class_names
        return self.store.rows_of([names[videos.number] for videos in self._classes])

    def _stem_features(self, rows: NDArray[np.int64], *, with_views: bool = False) -> StemFeatures:
        return StemFeatures(
            self.store,
            self.network.stem,
            rows,
            with_views=with_views,
            budget_bytes=int(self.config.cache_gib * GIB),
            device=self.device,
        )


def network_rates(config: TrainConfig, network: I2STNetwork) -> list[RatedParameters]:
    """The network's parameters at the two rates of the config."""
    rated = [
        RatedParameters(parameters=network.fast_parameters(), rate=config.fast_rate),
        RatedParameters(parameters=network.slow_parameters(), rate=config.slow_rate),
    ]
    return [group for group in rated if group.parameters]


def network_losses(
    learner: Learner, config: TrainConfig, encoded: Encoded, batch: Supervision
) -> Losses:
    """Add up what a pool costs: ``episode + alpha base + beta mask``, in float32.

    Args:
        learner: scores episodes.
        config: the weights of the terms.
        encoded: what the network, in training mode, made of the pool's clips.
        batch: what supervises them.

    Returns:
        The terms ``episode``, ``base`` and ``mask``, and their sum.
    """
    encoded = _float32(encoded)
    episode, accuracy = episode_terms(learner, encoded.descriptors, batch.pool)
    zero = episode.new_zeros(())
    parts = {"episode": episode, "base": zero, "mask": zero}
    if encoded.base_logits is not None and config.alpha > 0:
        parts["base"] = base_class_loss(encoded.base_logits, batch.base_classes)
    if encoded.mask_logits is not None and batch.masks is not None:
        masks = batch.masks
        parts["mask"] = mask_loss(
            encoded.mask_logits, masks.coverage, masks.valid, dice_weight=config.dice
        )
    total = episode + config.alpha * parts["base"] + config.beta * parts["mask"]
    return Losses(total=total, parts=parts, accuracy=accuracy)


def _float32(encoded: Encoded) -> Encoded:
    """The same in float32, which it is unless it was made under autocast."""
    values = {one.name: getattr(encoded, one.name) for one in fields(encoded)}
    return replace(encoded, **{name: v.float() for name, v in values.items() if v is not None})
