"""What all learners share: a head that learns, and data for it."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.training.data import Batch, ClipSource, TrainData
from i2st_model.training.head import Ground, Head
from i2st_model.training.learner import Learner, RatedParameters
from i2st_model.training.pools import Pool


class HeadLearner(Learner):
    """A head on features; a subclass says where these come from.

    Args:
        ground: what the run trains on.
        head: what learns; it is built here, from torch's generators.

    Raises:
        BackendError: no method has that name.
        ConfigError: settings contradict each other or the shards.
    """

    def __init__(self, ground: Ground, head: type[Head]) -> None:
        self.ground = ground
        self.config, self.store, self.device = ground.config, ground.store, ground.device
        self.head = head(ground)

    @abstractmethod
    def source(self) -> ClipSource:
        """Where clips of train videos come from; weights are in place."""

    def rated_parameters(self) -> list[RatedParameters]:
        """Those of the head."""
        return self.head.rated_parameters()

    def begin(self) -> None:
        """Fit what the head fits before the first step."""
        self.head.begin()

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Find clips, and the masks that supervise."""
        self.data = TrainData(
            self.config,
            self.store,
            self.source(),
            train_classes=[videos.number for videos in self.ground.classes],
            mask_side=self.head.mask_side,
            device=self.device,
        )

    def batch(self, pool: Pool, number: int) -> Batch:
        """Clips, masks and base classes of a pool."""
        return self.data.batch(pool, number)

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made: (E, Q, N) logits."""
        return self.head.score(support, query)

    def description(self) -> dict[str, Any]:
        """What the head says of itself; method, options and encoder are in the train config."""
        return self.head.description()
