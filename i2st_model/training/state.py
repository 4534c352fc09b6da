"""What a killed run needs to go on as if it had not been: weights, best weights, optimizer moments.

No RNG state is among it: every pool seeds its own draws from (seed, number).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2st_model.tensor_files import load_tensors, save_tensors
from i2st_model.training.learner import Learner
from pipeline.errors import CheckpointError

FORMAT = "i2st-train-state"


@dataclass(kw_only=True, slots=True)
class Best:
    """The weights to keep so far."""

    step: int = 0
    val_accuracy: float | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

    def take(self, learner: Learner, step: int, val_accuracy: float | None) -> None:
        """Replace them by the learner's."""
        self.step, self.val_accuracy = step, val_accuracy
        self.weights = {
            name: value.detach().cpu().clone() for name, value in learner.weights().items()
        }


def save_state(
    path: Path,
    *,
    step: int,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    best: Best,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a state, whole or not at all.

    Args:
        path: the file.
        step: steps that are done.
        learner: its current weights.
        optimizer: its moments are stored by parameter name.
        best: weights to keep so far.
        notes: JSON values to keep beside them.
    """
    tensors = {f"network.{name}": value for name, value in learner.weights().items()}
    tensors |= {f"best.{name}": value for name, value in best.weights.items()}
    for name, parameter in learner.network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    values = {
        "format": FORMAT,
        "step": step,
        "best_step": best.step,
        "best_val_accuracy": best.val_accuracy,
        **(notes or {}),
    }
    save_tensors(path, tensors, values)


def load_state(
    path: Path, *, learner: Learner, optimizer: torch.optim.Optimizer
) -> tuple[int, Best]:
    """Read a state into a learner and its optimizer.

    Args:
        path: the file.
        learner: as built from the run's config.
        optimizer: over its parameters.

    Returns:
        Steps that are done, and the weights to keep so far.

    Raises:
        CheckpointError: the file is damaged, or does not fit the learner.
    """
    values, tensors = load_tensors(path)
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {values.get('format')!r:.40}; {FORMAT} was needed; train again"
        )
    learner.load_weights(_part(tensors, "network."), path)
    parameters = dict(learner.network.named_parameters())
    moments: dict[str, dict[str, Any]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        kind, name = key.split(".", 1)
        if name not in parameters or value.shape not in ((), parameters[name].shape):
            raise CheckpointError(
                f"{path} holds {key} of shape {tuple(value.shape)}, which no parameter has; "
                "start another run"
            )
        # AdamW keeps its step count on the CPU, and its moments beside the parameter.
        place = "cpu" if kind == "step" else parameters[name].device
        moments.setdefault(name, {})[kind] = value.to(place)
    for name, state in moments.items():
        optimizer.state[parameters[name]] = state
    best = Best(
        step=int(values["best_step"]),
        val_accuracy=values["best_val_accuracy"],
        weights=_part(tensors, "best."),
    )
    return int(values["step"]), best


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
