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

Shape letters: B clips of a pool, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.checkpoints import load_weights
from i2st_model.losses import episode_loss
from i2st_model.training.pools import Pool

Score = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedParameters:
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float
    """Before the schedule's factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """What one pool costs."""

    total: Tensor
    """Scalar float32; what is minimised."""
    parts: dict[str, Tensor]
    """Name -> scalar: the terms before their weights; logged as NAME_loss."""
    accuracy: float
    """Percent of the pool's queries."""


class Learner(ABC):
    """What is trained; see the module's text for who calls what."""

    network: nn.Module
    """Holds every trained parameter; its names are those of states and checkpoints."""
    device: torch.device

    @abstractmethod
    def rated_parameters(self) -> list[RatedParameters]:
        """Every trained parameter once; the first group's rate is the one that is logged."""

    @abstractmethod
    def begin(self) -> None:
        """Fit what is fitted on training data before the first step; a resumed run loads it."""

    @abstractmethod
    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Make ready for batches, and for ``prepare`` of these rows; weights are in place.

        Args:
            val_rows: (V,) rows of the videos of val episodes; empty where none are looked at.
        """

    @abstractmethod
    def batch(self, pool: Pool, number: int) -> Any:
        """Make the clips of a pool, on the device.

        Args:
            pool: rows and episodes.
            number: of the pool; no other pool of the run has it.

        Returns:
            What `losses` takes.
        """

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """Run the network, in training mode, on one pool."""

    @abstractmethod
    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Describe videos as at test time, first axis B; the network is in test mode."""

    @abstractmethod
    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score prepared clips with leading axes (E, N, K) and (E, Q): (E, Q, N) logits."""

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

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Fields of `CheckpointInfo` from which the network is built again: ``network`` etc."""


def episode_logits(
    score: Score, prepared: Mapping[str, Tensor], pool: Pool
) -> tuple[Tensor, Tensor]:
    """Score the episodes of a pool among its prepared clips.

    Args:
        score: as `Learner.score`.
        prepared: every value has first axis B, the clips of ``pool.rows.ravel()``.
        pool: the episodes.

    Returns:
        (E, Q, N) logits, and (E, Q) int64 true positions.
    """
    device = next(iter(prepared.values())).device
    support_ENK = torch.from_numpy(pool.support).to(device)
    query_ENq = torch.from_numpy(pool.query).to(device)
    E, N, q = query_ENq.shape
    logits_EQN = score(
        {name: value[support_ENK] for name, value in prepared.items()},
        {name: value[query_ENq.flatten(1)] for name, value in prepared.items()},
    )
    return logits_EQN, torch.arange(N, device=device).repeat_interleave(q).expand(E, N * q)


def episode_terms(score: Score, prepared: Mapping[str, Tensor], pool: Pool) -> tuple[Tensor, float]:
    """Mean cross-entropy of a pool's episodes, and the percent of queries that were recognised."""
    logits_EQN, labels_EQ = episode_logits(score, prepared, pool)
    correct = (logits_EQN.detach().argmax(dim=-1) == labels_EQ).float().mean()
    return episode_loss(logits_EQN, labels_EQ), 100.0 * correct.item()
