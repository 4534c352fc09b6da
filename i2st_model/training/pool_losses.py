"""What heads tell a step: losses of a pool's episodes, and parameters with their rates.

Shape letters: B clips of a pool, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


def episode_logits(
    score: Score, prepared: Mapping[str, Tensor], pool: Pool
) -> tuple[Tensor, Tensor]:
    """Score the episodes of a pool among its prepared clips.

    Args:
        score: as `Head.score`.
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
