"""What a run trains, behind the little that `train` has to know of it.

`train` owns which pools a step sees, seeds, ranks, gradients, rates, the log, states and the
selection of weights; a learner owns modules, clips and losses. The calls come in this order:

    learner = build_learner(config, store, classes=..., device=...)     learners.py
    learner.begin()  or  learner.load_weights(...)                      a fresh or a resumed run
    learner.open(val_rows)                                              caches
    per pool: batch = learner.batch(pool, number); learner.losses(batch).total.backward()
    per look at val: learner.prepare(rows), learner.score(support, query)
    at the end: learner.weights(), learner.description() into the checkpoint

What a pool's losses depend on: the weights, the pool and its number. `train` seeds torch's
generators from (seed, number) before `losses`; `batch` may run in another thread while a step is
taken, so whatever it draws comes from `i2st_model.drawing.draws.Words(stream, seed, number)`, and
it reads no weight that trains.

Shape letters: B clips of a pool, V videos, E episodes, N way, K shot, Q query clips.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.checkpoints import load_weights
from i2st_model.training.data import Batch, ClipSource, TrainData
from i2st_model.training.head import Ground, Head
from i2st_model.training.pool_losses import Losses, RatedParameters
from i2st_model.training.pools import Pool


class Learner(ABC):
    """A head on features, and where these come from, which a subclass says.

    Args:
        ground: what the run trains on.
        head: what learns; it is built here, from torch's generators.

    Raises:
        BackendError: no method has that name.
        ConfigError: settings contradict each other or the shards.
    """

    network: nn.Module
    """Holds every trained parameter; its names are those of states and checkpoints."""

    def __init__(self, ground: Ground, head: type[Head]) -> None:
        self.ground = ground
        self.config, self.store, self.device = ground.config, ground.store, ground.device
        self.head = head(ground)

    @abstractmethod
    def source(self) -> ClipSource:
        """Where clips of train videos come from; weights are in place."""

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Run the network, in training mode, on one pool."""

    @abstractmethod
    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Describe videos as at test time, first axis B; the network is in test mode."""

    def rated_parameters(self) -> list[RatedParameters]:
        """Every trained parameter once; the first group's rate is the one that is logged."""
        return self.head.rated_parameters()

    def begin(self) -> None:
        """Fit what is fitted on training data before the first step; a resumed run loads it."""
        self.head.begin()

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Make ready for batches, and for ``prepare`` of these rows; weights are in place.

        Args:
            val_rows: (V,) rows of the videos of val episodes; empty where none are looked at.
        """
        self.data = TrainData(
            self.config,
            self.store,
            self.source(),
            train_classes=[videos.number for videos in self.ground.classes],
            mask_side=self.head.mask_side,
            device=self.device,
        )

    def batch(self, pool: Pool, number: int) -> Batch:
        """Make the clips of a pool, with masks and base classes, on the device.

        Args:
            pool: rows and episodes.
            number: of the pool; no other pool of the run has it.

        Returns:
            What `losses` takes.
        """
        return self.data.batch(pool, number)

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score prepared clips with leading axes (E, N, K) and (E, Q): (E, Q, N) logits."""
        return self.head.score(support, query)

    def weights(self) -> dict[str, Tensor]:
        """What states and the checkpoint hold; less than the network where parts never change."""
        return self.network.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor], path: Path) -> None:
        """Take what `weights` once returned.

        Args:
            weights: name -> tensor.
            path: file they come from, for messages.

        Raises:
            CheckpointError: names, shapes or types differ, or a weight is not finite.
        """
        load_weights(self.network, weights, path)

    def description(self) -> dict[str, Any]:
        """Fields of `CheckpointInfo` beside the train config, which has method and encoder."""
        return self.head.description()
