"""Which pools each step of a run sees, all processes together."""

from dataclasses import dataclass

from i2st_model.training.config import TrainConfig
from i2st_model.training.schedules import num_steps
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPools:
    """The pools of one step."""

    step: int
    """0 for the first step."""
    num_steps: int
    """Of the whole run."""
    numbers: tuple[int, ...]
    """Of its pools; no two steps share one."""
    episodes: tuple[int, ...]
    """Of each pool, at least one."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Weight of each pool: its part of the step's episodes."""
        return tuple(count / sum(self.episodes) for count in self.episodes)


def step_pools(config: TrainConfig, step: int) -> StepPools:
    """Divide a step's episodes among its pools.

    Args:
        config: the run's settings.
        step: 0 for the first step.

    Returns:
        Pools ``step P`` .. ``step P + P - 1``; fewer in the last step where episodes are fewer.
    """
    P = config.pools_per_step
    left = min(config.episodes - step * config.episodes_per_step, config.episodes_per_step)
    counts = [left // P + (place < left % P) for place in range(P)]
    kept = [(step * P + place, count) for place, count in enumerate(counts) if count]
    return StepPools(
        step=step,
        num_steps=num_steps(config.episodes, config.episodes_per_step),
        numbers=tuple(number for number, _ in kept),
        episodes=tuple(count for _, count in kept),
    )


def require_shared(config: TrainConfig, processes: int) -> None:
    """Refuse a step in which a process would have no pool.

    Args:
        config: the run's settings.
        processes: that share each step's pools.

    Raises:
        ConfigError: a step has fewer pools than there are processes.
    """
    last = step_pools(config, num_steps(config.episodes, config.episodes_per_step) - 1)
    if config.pools_per_step < processes:
        raise ConfigError(
            f"pools_per_step={config.pools_per_step} with {processes} processes; a pool for each "
            f"was needed; pass --set pools_per_step={processes}"
        )
    if len(last.numbers) < processes:
        whole = last.step * config.episodes_per_step
        raise ConfigError(
            f"episodes={config.episodes} leaves {len(last.numbers)} for the last step, "
            f"{processes} processes need one each; pass --episodes "
            f"{whole or config.episodes_per_step}"
        )
