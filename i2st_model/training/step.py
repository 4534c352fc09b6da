"""One training step: losses of its pools, mean gradient, update.

Shape letters: P pools of the step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from i2st_model.training.config import TrainConfig
from i2st_model.training.finite import require_finite_gradient, require_finite_terms
from i2st_model.training.gradients import GradientSum
from i2st_model.training.learner import Learner
from i2st_model.training.ranks import Ranks
from i2st_model.training.schedules import learning_rate_factor
from i2st_model.training.setup import torch_seed
from i2st_model.training.step_pools import StepPools
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Numbers of one step: means over its pools, weighted by their episodes."""

    loss: float
    parts: dict[str, float]
    """The terms before their weights."""
    accuracy: float
    """Percent of the step's queries, before the update."""
    gradient_norm: float
    """Before it is clipped."""
    learning_rate: float
    """Of the first group of parameters."""

    def to_json(self) -> dict[str, float]:
        """Numbers by name, as they are logged."""
        parts = {f"{name}_loss": value for name, value in self.parts.items()}
        return {
            "loss": self.loss,
            **parts,
            "accuracy": self.accuracy,
            "gradient_norm": self.gradient_norm,
            "learning_rate": self.learning_rate,
        }


def build_optimizer(config: TrainConfig, learner: Learner) -> torch.optim.AdamW:
    """AdamW with the learner's rates."""
    groups = [
        {"params": list(group.parameters), "lr": group.rate, "base_rate": group.rate}
        for group in learner.rated_parameters()
    ]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def take_step(
    config: TrainConfig,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    *,
    pools: StepPools,
    ranks: Ranks,
) -> StepResult:
    """Update the network once, with the mean gradient of the step's pools.

    Args:
        config: the run's settings.
        learner: its network is in training mode.
        optimizer: from `build_optimizer`.
        batches: of the learner, one for each of this process's pools.
        pools: of the step, all processes together.
        ranks: the processes that share the step.

    Returns:
        Numbers for the log, the same in every process.

    Raises:
        NotFiniteError: a loss or the gradient is not finite, in any process; the network is left
            as it was.
    """
    factor = learning_rate_factor(pools.step, pools.num_steps, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
    terms = backward_pools(config, learner, batches, pools=pools, ranks=ranks)
    require_finite_terms(terms, config, pools)
    norm = _clip_gradient(config, learner, pools)
    optimizer.step()
    means = {
        name: sum(value * share for value, share in zip(values, pools.shares, strict=True))
        for name, values in terms.items()
    }
    return StepResult(
        loss=means.pop("loss"),
        accuracy=means.pop("accuracy"),
        parts=means,
        gradient_norm=norm,
        learning_rate=optimizer.param_groups[0]["lr"],
    )


def _clip_gradient(config: TrainConfig, learner: Learner, pools: StepPools) -> float:
    """Scale the gradient down where it is too long; its norm before that."""
    norm = gradient_norm(learner)
    # Before it is scaled: one that is not finite would make all of them so.
    require_finite_gradient(norm.item(), learner.network, config, pools)
    torch.nn.utils.clip_grads_with_norm_(learner.network.parameters(), config.gradient_clip, norm)
    return norm.item()


def gradient_norm(learner: Learner) -> Tensor:
    """Length of the whole gradient, a scalar; inf also where its squares alone overflow."""
    parameters = learner.network.parameters()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def backward_pools(
    config: TrainConfig,
    learner: Learner,
    batches: Iterable[Any],
    *,
    pools: StepPools,
    ranks: Ranks,
) -> dict[str, list[float]]:
    """Put the mean gradient of a step's pools on the parameters.

    Args:
        config: the run's settings.
        learner: its network is in training mode.
        batches: one for each of this process's pools.
        pools: of the step, all processes together.
        ranks: the processes that share the step.

    Returns:
        ``loss``, the learner's terms and ``accuracy``: of each of the P pools, in order.

    Raises:
        ConfigError: the losses do not depend on anything that trains.
    """
    parameters = list(learner.network.parameters())
    for parameter in parameters:
        parameter.grad = None
    places = ranks.share(range(len(pools.numbers)))
    alone = len(pools.numbers) == ranks.count == 1
    gradients = None if alone else GradientSum(parameters, ranks)
    rows: dict[int, dict[str, float]] = {}
    with ranks.together():
        for place, batch in zip(places, batches, strict=True):
            torch.manual_seed(torch_seed(config.seed, pools.numbers[place]))
            losses = learner.losses(batch)
            if not losses.total.requires_grad:
                raise ConfigError(
                    f"no gradient passes through method {config.method} to what would train; a "
                    "method that is differentiable was needed; pass another --method"
                )
            (losses.total * pools.shares[place]).backward()
            parts = {name: value.item() for name, value in losses.parts.items()}
            rows[place] = {"loss": losses.total.item(), **parts, "accuracy": losses.accuracy}
            if gradients is not None:
                gradients.take()
    if gradients is not None:
        gradients.give()
    return _of_all(rows, len(pools.numbers), ranks)


def _of_all(rows: dict[int, dict[str, float]], count: int, ranks: Ranks) -> dict[str, list[float]]:
    """Numbers of all pools, from every process; one that lacks a pool adds exact zeros."""
    names = list(next(iter(rows.values())))
    table = torch.zeros(count, len(names), dtype=torch.float64)
    for place, row in rows.items():
        table[place] = torch.tensor(list(row.values()), dtype=torch.float64)
    return dict(zip(names, ranks.sum(table).T.tolist(), strict=True))
