"""A head on cached features, as something that `train` trains.

Shape letters: B clips of a pool.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.stem_features import ClipFeatures
from i2st_model.training.cached_clips import CachedClips
from i2st_model.training.data import Batch, ClipSource
from i2st_model.training.head import Ground, Head
from i2st_model.training.learner import Learner
from i2st_model.training.pool_losses import Losses
from i2st_model.training.view_draws import ViewDraws
from pipeline.errors import ConfigError

GIB = 1 << 30


class CachedLearner(Learner):
    """Trains a head alone.

    Args:
        ground: what the run trains on.
        head: what learns.

    Raises:
        ConfigError: the head has no weights, or settings contradict each other or the shards.
    """

    def __init__(self, ground: Ground, head: type[Head]) -> None:
        super().__init__(ground, head)
        if not self.head.rated_parameters():
            raise ConfigError(
                f"method {ground.config.method} has no weights; one that trains was needed; "
                f"evaluate it as it is: `i2st evaluate --method {ground.config.method}`"
            )
        self.network = self.head.module

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Keep what never changes of train and val videos, as far as memory allows."""
        self._left_bytes = int(self.config.cache_gib * GIB)
        super().open(val_rows)
        self._val_features = self._cached(val_rows) if len(val_rows) else None

    def source(self) -> ClipSource:
        """Cached clips, in stored views where there are any."""
        views = ViewDraws(self.config, self.store)
        features = self._cached(self.ground.rows, with_views=views.any)
        return CachedClips(self.config, self.store, features, views)

    def losses(self, batch: Batch) -> Losses:
        """What the head makes of the pool."""
        return self.head.losses(self.head.of_fixed(batch.pool.rows.ravel(), batch.seen), batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Describe videos seen as at test time."""
        assert self._val_features is not None
        return self.head.prepare(self.head.of_fixed(rows, self._val_features.clips(rows)))

    def _cached(self, rows: NDArray[np.int64], *, with_views: bool = False) -> ClipFeatures:
        """Features of videos, kept where the rest of the budget suffices."""
        features = ClipFeatures(
            self.store,
            self.head.fixed(),
            rows,
            with_views=with_views,
            budget_bytes=self._left_bytes,
            device=self.device,
        )
        self._left_bytes -= features.size_bytes if features.cached else 0
        return features
