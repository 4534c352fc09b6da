"""What stops a step: a loss or a gradient that is not finite."""

from math import isfinite

from torch import nn

from i2st_model.training.config import TrainConfig
from i2st_model.training.step_pools import StepPools
from pipeline.errors import I2STError


class NotFiniteError(I2STError):
    """A loss or a gradient is not finite; ``culprits`` names the terms or parameters."""

    def __init__(self, message: str, culprits: tuple[str, ...]) -> None:
        super().__init__(message)
        self.culprits = culprits


def require_finite_terms(
    terms: dict[str, list[float]], config: TrainConfig, pools: StepPools
) -> None:
    """Refuse losses that are not finite.

    Args:
        terms: from `backward_pools`.
        config: the run's settings.
        pools: of the step.

    Raises:
        NotFiniteError: names the pools and the terms.
    """
    bad = [
        (name, number, value)
        for name, values in terms.items()
        for number, value in zip(pools.numbers, values, strict=True)
        if not isfinite(value)
    ]
    if bad:
        first = bad[0]
        culprits = tuple(dict.fromkeys(name for name, _, _ in bad if name != "loss"))
        where = f"loss is {first[2]}" + (f" in its term {', '.join(culprits)}" if culprits else "")
        raise NotFiniteError(_message(where, config, pools), culprits or ("loss",))


def require_finite_gradient(
    norm: float, network: nn.Module, config: TrainConfig, pools: StepPools
) -> None:
    """Refuse a gradient that is not finite.

    Args:
        norm: of the whole gradient.
        network: has the gradient on its parameters.
        config: the run's settings.
        pools: of the step.

    Raises:
        NotFiniteError: names the parameters.
    """
    if isfinite(norm):
        return
    bad = tuple(
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    )
    some = f" of {bad[0]}{' and others' if len(bad) > 1 else ''}" if bad else ""
    raise NotFiniteError(_message(f"gradient norm{some} is {norm}", config, pools), bad)


def _message(what: str, config: TrainConfig, pools: StepPools) -> str:
    first = pools.step * config.episodes_per_step
    return (
        f"{what} at step {pools.step + 1} (episodes {first} to {first + sum(pools.episodes) - 1} "
        f"of seed {config.seed}); a finite number was needed; lower the learning rates, fast_rate="
        f"{config.fast_rate} and slow_rate={config.slow_rate}"
    )
