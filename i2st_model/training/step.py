"""One training step: losses, gradient, update."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner
from i2st_model.training.schedules import learning_rate_factor
from pipeline.errors import I2STError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Numbers of one step."""

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
    batch: Any,
    *,
    step: int,
    num_steps: int,
) -> StepResult:
    """Update the network once.

    Args:
        config: the run's settings.
        learner: its network is in training mode.
        optimizer: from `build_optimizer`.
        batch: of the learner, for this step.
        step: 0 for the first step.
        num_steps: of the whole run.

    Returns:
        Numbers for the log.

    Raises:
        I2STError: loss or gradient is not finite; the network is left as it was.
    """
    factor = learning_rate_factor(step, num_steps, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
    losses = learner.losses(batch)
    _require_finite("loss", losses.total.item(), config, step)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    parameters = learner.network.parameters()
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip).item()
    _require_finite("gradient norm", norm, config, step)
    optimizer.step()
    return StepResult(
        loss=losses.total.item(),
        parts={name: value.item() for name, value in losses.parts.items()},
        accuracy=losses.accuracy,
        gradient_norm=norm,
        learning_rate=optimizer.param_groups[0]["lr"],
    )


def _require_finite(what: str, value: float, config: TrainConfig, step: int) -> None:
    if not isfinite(value):
        first = step * config.episodes_per_step
        last = min(config.episodes, first + config.episodes_per_step) - 1
        raise I2STError(
            f"{what} is {value} at step {step + 1} (episodes {first} to {last} of "
            f"seed {config.seed}); a finite number was needed; lower the learning rates, fast_rate="
            f"{config.fast_rate} and slow_rate={config.slow_rate}"
        )
