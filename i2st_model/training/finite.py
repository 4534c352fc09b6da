"""What stops a run: a loss, a gradient or weights that are not finite."""

from collections.abc import Mapping
from math import isfinite

from torch import Tensor, nn

from i2st_model.training.config import TrainConfig
from i2st_model.training.step_pools import StepPools
from pipeline.errors import I2STError


class NotFiniteError(I2STError):
    """Numbers of a run are not finite; ``culprits`` names the terms, parameters or weights."""

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


def require_finite_weights(weights: Mapping[str, Tensor], config: TrainConfig, step: int) -> None:
    """Refuse weights that an update made infinite or nan.

    Args:
        weights: to be kept for good.
        config: the run's settings.
        step: the last one that changed them.

    Raises:
        NotFiniteError: names the weights.
    """
    bad = tuple(name for name, value in weights.items() if not bool(value.isfinite().all()))
    if bad:
        some = f"{bad[0]}{' and others' if len(bad) > 1 else ''}"
        what = f"weights {some} are not finite after step {step} of seed {config.seed}"
        raise NotFiniteError(f"{what}; {_remedy(config)}", bad)


def _message(what: str, config: TrainConfig, pools: StepPools) -> str:
    first = pools.step * config.episodes_per_step
    return (
        f"{what} at step {pools.step + 1} (episodes {first} to {first + sum(pools.episodes) - 1} "
        f"of seed {config.seed}); {_remedy(config)}"
    )


def _remedy(config: TrainConfig) -> str:
    return (
        "a finite number was needed; lower the learning rates, "
        f"fast_rate={config.fast_rate} and slow_rate={config.slow_rate}"
    )
