"""One training step: forward, losses, gradient, update.

Shape letters: B clips of the pool, E episodes, N way, K shot, q queries per class.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from i2st_model.losses import base_class_loss, episode_loss, mask_loss
from i2st_model.network import I2STNetwork
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import TrainBatch
from i2st_model.training.schedules import learning_rate_factor
from pipeline.errors import I2STError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Numbers of one step."""

    loss: float
    episode_loss: float
    base_loss: float
    mask_loss: float
    accuracy: float
    """Percent of the step's queries, before the update."""
    gradient_norm: float
    """Before it is clipped."""
    learning_rate: float
    """Of projection and mask decoder."""


def build_optimizer(config: TrainConfig, network: I2STNetwork) -> torch.optim.AdamW:
    """AdamW with the two rates of the config."""
    rates = [(network.fast_parameters(), config.fast_rate)]
    rates.append((network.slow_parameters(), config.slow_rate))
    groups = [{"params": some, "lr": rate, "base_rate": rate} for some, rate in rates if some]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def take_step(
    config: TrainConfig,
    network: I2STNetwork,
    optimizer: torch.optim.Optimizer,
    batch: TrainBatch,
    *,
    step: int,
    num_steps: int,
) -> StepResult:
    """Update the network once.

    Args:
        config: the run's settings.
        network: in training mode.
        optimizer: from `build_optimizer`.
        batch: clips and episodes of this step.
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
    parts, accuracy = _losses(config, network, batch)
    loss = parts["episode"] + config.alpha * parts["base"] + config.beta * parts["mask"]
    _require_finite("loss", loss.item(), config, step, len(batch.pool.query))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip).item()
    _require_finite("gradient norm", norm, config, step, len(batch.pool.query))
    optimizer.step()
    return StepResult(
        loss=loss.item(),
        episode_loss=parts["episode"].item(),
        base_loss=parts["base"].item(),
        mask_loss=parts["mask"].item(),
        accuracy=accuracy,
        gradient_norm=norm,
        learning_rate=config.fast_rate * factor,
    )


def _losses(
    config: TrainConfig, network: I2STNetwork, batch: TrainBatch
) -> tuple[dict[str, Tensor], float]:
    encoded = network.encode(batch.stem_tokens, with_masks=batch.masks is not None)
    device = batch.stem_tokens.device
    support_ENK = torch.from_numpy(batch.pool.support).to(device)
    query_ENq = torch.from_numpy(batch.pool.query).to(device)
    E, N, q = query_ENq.shape
    logits_EQN = network.logits(
        {name: value[query_ENq.flatten(1)] for name, value in encoded.descriptors.items()},
        {name: value[support_ENK] for name, value in encoded.descriptors.items()},
    )
    labels_EQ = torch.arange(N, device=device).repeat_interleave(q).expand(E, N * q)
    zero = logits_EQN.new_zeros(())
    parts = {"episode": episode_loss(logits_EQN, labels_EQ), "base": zero, "mask": zero}
    if encoded.base_logits is not None and config.alpha > 0:
        parts["base"] = base_class_loss(encoded.base_logits, batch.base_classes)
    if encoded.mask_logits is not None and batch.masks is not None:
        masks = batch.masks
        parts["mask"] = mask_loss(
            encoded.mask_logits, masks.coverage, masks.valid, dice_weight=config.dice
        )
    correct = (logits_EQN.detach().argmax(dim=-1) == labels_EQ).float().mean()
    return parts, 100.0 * correct.item()


def _require_finite(what: str, value: float, config: TrainConfig, step: int, episodes: int) -> None:
    if not isfinite(value):
        first = step * config.episodes_per_step
        raise I2STError(
            f"{what} is {value} at step {step + 1} (episodes {first} to {first + episodes - 1} of "
            f"seed {config.seed}); a finite number was needed; lower the learning rates, fast_rate="
            f"{config.fast_rate} and slow_rate={config.slow_rate}"
        )
