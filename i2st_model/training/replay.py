"""What a step that was not finite leaves behind, and the same step again under a lens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2st_model.features import FeatureStore
from i2st_model.runs import FAULT_NAME, read_config
from i2st_model.training.config import TrainConfig
from i2st_model.training.finite import NotFiniteError
from i2st_model.training.learner import Learner
from i2st_model.training.learners import build_learner
from i2st_model.training.ranks import Ranks
from i2st_model.training.setup import INITIAL, NO_ROWS, own_torch, pool_sampler, torch_seed
from i2st_model.training.state import Best, load_state, save_state
from i2st_model.training.step import backward_pools, build_optimizer, gradient_norm
from i2st_model.training.step_pools import StepPools, step_pools
from pipeline.devices import resolve_device
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """What the step showed the second time."""

    step: int
    """1 for the first step."""
    pools: tuple[int, ...]
    """Numbers of its pools."""
    episodes: tuple[int, int]
    """First and last."""
    terms: dict[str, list[float]]
    """Loss, its terms and the accuracy, of each pool."""
    bad_terms: tuple[str, ...]
    """Those that are not finite."""
    bad_modules: tuple[str, ...]
    """Modules whose output was not finite, in the order in which they ran."""
    bad_gradients: tuple[str, ...]
    """Parameters whose gradient is not finite."""
    gradient_norm: float
    """Of the whole gradient; too long for its float where it is inf and no parameter is named."""

    @property
    def reproduced(self) -> bool:
        """Whether anything was not finite again."""
        return bool(self.bad_terms or self.bad_gradients) or not isfinite(self.gradient_norm)


def save_fault(
    run_folder: Path,
    fault: NotFiniteError,
    pools: StepPools,
    *,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Keep the state before a step that was not finite.

    Args:
        run_folder: gets ``fault.safetensors``.
        fault: what was not finite.
        pools: of the step.
        learner: its weights are still those before the step.
        optimizer: its moments, likewise.
    """
    notes = {"pools": list(pools.numbers), "culprits": list(fault.culprits), "said": str(fault)}
    save_state(
        run_folder / FAULT_NAME,
        step=pools.step,
        learner=learner,
        optimizer=optimizer,
        best=Best(),
        notes=notes,
    )


def replay(config: TrainConfig, store: FeatureStore, run_folder: Path) -> ReplayReport:
    """Take the step that stopped a run once more, up to its gradient, and look at every module.

    Args:
        config: of the run.
        store: what its shards hold.
        run_folder: holds ``fault.safetensors``.

    Returns:
        What is not finite.

    Raises:
        ConfigError: the run was not stopped by numbers that are not finite, or the shards are not
            those it was trained on.
        CheckpointError: the state is damaged.
    """
    path = run_folder / FAULT_NAME
    if not path.is_file():
        raise ConfigError(
            f"{path} is absent; a run that a loss or gradient stopped was needed; name such a run"
        )
    _require_same_shards(store, run_folder)
    with own_torch():
        sampler = pool_sampler(config, store)
        device = torch.device(resolve_device(config.device))
        torch.manual_seed(torch_seed(config.seed, INITIAL))
        learner = build_learner(config, store, classes=sampler.videos, device=device)
        step, _ = load_state(path, learner=learner, optimizer=build_optimizer(config, learner))
        learner.open(NO_ROWS)
        learner.network.train()
        pools = step_pools(config, step)
        batches = (
            learner.batch(sampler.pool(number, episodes), number)
            for number, episodes in zip(pools.numbers, pools.episodes, strict=True)
        )
        with watched(learner.network) as bad_modules:
            terms = backward_pools(config, learner, batches, pools=pools, ranks=Ranks())
    first = step * config.episodes_per_step
    return ReplayReport(
        step=step + 1,
        pools=pools.numbers,
        episodes=(first, first + sum(pools.episodes) - 1),
        terms=terms,
        bad_terms=tuple(name for name, some in terms.items() if not all(map(isfinite, some))),
        bad_modules=tuple(dict.fromkeys(bad_modules)),
        bad_gradients=tuple(
            _not_finite({name: one.grad for name, one in learner.network.named_parameters()})
        ),
        gradient_norm=gradient_norm(learner).item(),
    )


def _require_same_shards(store: FeatureStore, run_folder: Path) -> None:
    recorded = read_config(run_folder).get("digest")
    if recorded != store.index.digest:
        raise ConfigError(
            f"{run_folder} was trained on shards of digest {str(recorded)[:12]}, "
            f"{store.reader.folder} has {store.index.digest[:12]}; the same clips were needed to "
            "repeat its step; pass --shards"
        )


@contextmanager
def watched(network: nn.Module) -> Iterator[list[str]]:
    """Note the modules whose output is not finite while the body runs.

    Args:
        network: its modules, and itself as the empty name, are looked at.

    Yields:
        list[str]: Their names, in the order in which they ran.
    """
    bad: list[str] = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, given: Any, made: Any) -> None:
            parts = made if isinstance(made, tuple) else (made,)
            if any(isinstance(one, Tensor) and not bool(one.isfinite().all()) for one in parts):
                bad.append(name)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        yield bad
    finally:
        for hook in hooks:
            hook.remove()


def _not_finite(tensors: dict[str, Any]) -> Iterator[str]:
    for name, value in tensors.items():
        if value is not None and not bool(value.isfinite().all()):
            yield name
