"""A head on cached features, as something that `train` trains.

Shape letters: B clips of a pool.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.features import FeatureStore
from i2st_model.training.cached_clips import CachedClips
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import Batch, ClipSource
from i2st_model.training.head import Head
from i2st_model.training.head_learner import HeadLearner
from i2st_model.training.learner import Losses
from i2st_model.training.view_draws import ViewDraws
from pipeline.errors import ConfigError


class CachedLearner(HeadLearner):
    """Trains a head alone.

    Args:
        config: the run's settings.
        store: features of the dataset.
        head: what learns.
        classes: the train classes, in the order of a base-class head.
        device: where everything is computed.

    Raises:
        ConfigError: the head has no weights, or settings contradict each other or the shards.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        head: type[Head],
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        super().__init__(config, store, head=head, classes=classes, device=device)
        if not self.head.rated_parameters():
            raise ConfigError(
                f"method {config.method} has no weights; one that trains was needed; evaluate it "
                f"as it is: `i2st evaluate --method {config.method}`"
            )
        self.network = self.head.module

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Keep what never changes of train and val videos, as far as memory allows."""
        super().open(val_rows)
        self._val_features = self.head.cached(val_rows) if len(val_rows) else None

    def source(self) -> ClipSource:
        """Cached clips, in stored views where there are any."""
        views = ViewDraws(self.config, self.store)
        features = self.head.cached(self.rows, with_views=views.any)
        return CachedClips(self.config, self.store, features, views)

    def losses(self, batch: Batch) -> Losses:
        """What the head makes of the pool."""
        return self.head.losses(self.head.of_cached(batch.pool.rows.ravel(), batch.seen), batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Describe videos seen as at test time."""
        assert self._val_features is not None
        return self.head.prepare(self.head.of_cached(rows, self._val_features.clips(rows)))
