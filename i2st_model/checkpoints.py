"""Checkpoints: a network's weights, and where they come from.

Nothing here can run code: the tensors' names, types and shapes are compared with what the network
needs before any of them is copied.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_manifests import __version__
from i2st_model.checkpoint_checks import damaged, require_sound
from i2st_model.runs import CHECKPOINT_NAME, STATE_NAME
from i2st_model.tensor_files import load_tensors, save_tensors
from pipeline.errors import CheckpointError, ConfigError

FORMAT = "i2st-checkpoint"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 lacks the fields that have defaults; the first files of version 2 lack some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """Where a network comes from."""

    network: dict[str, Any]
    """Fields of the network's config; empty for methods without one."""
    train: dict[str, Any]
    """Fields of the train config."""
    fingerprint: dict[str, Any]
    """Of the shards: what decided the features."""
    dataset: str
    digest: str
    """Of the shards: their content."""
    train_classes: list[str]
    """Classes that training saw, in the order of the base-class head."""
    step: int
    """Steps taken up to these weights."""
    val_accuracy: float | None
    """Percent on the fixed val episodes; None where nothing was selected."""
    selected: str
    """``val`` or ``last``: how these weights were chosen."""
    method: str = "i2st"
    options: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments of a method other than i2st."""
    train_video_hashes: list[int] = field(default_factory=list)
    """Of the ids of the train videos; see `i2st_model.leaks`."""
    train_feature_hashes: list[int] = field(default_factory=list)
    """Of what the train videos hold; see `i2st_model.copied_videos`."""
    chosen_on: list[str] = field(default_factory=list)
    """Classes whose accuracy chose the weights, or those that they started from."""
    version: str = __version__
    format: str = FORMAT
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A trained network's weights and their provenance."""

    path: Path
    info: CheckpointInfo
    weights: dict[str, Tensor]

    def load_into(self, network: nn.Module) -> None:
        """Copy the weights into a network built from ``info.network``.

        Args:
            network: receives the weights, all or none.

        Raises:
            CheckpointError: names, shapes or types differ from the network's, or a weight is not
                finite.
        """
        load_weights(network, self.weights, self.path)


def save_checkpoint(run_folder: Path, weights: Mapping[str, Tensor], info: CheckpointInfo) -> Path:
    """Write ``checkpoint.safetensors``, whole or not at all, and return its path."""
    path = run_folder / CHECKPOINT_NAME
    save_tensors(path, weights, asdict(info))
    return path


def load_checkpoint(run_folder: Path) -> Checkpoint:
    """Read the checkpoint of a run.

    Args:
        run_folder: a run's folder, or the checkpoint file itself.

    Returns:
        Weights on the CPU, and their provenance.

    Raises:
        ConfigError: there is none.
        CheckpointError: it is no checkpoint of this format, or it is damaged.
    """
    path = run_folder / CHECKPOINT_NAME if run_folder.is_dir() else run_folder
    if not path.is_file():
        unfinished = (run_folder / STATE_NAME).is_file()
        resume = f"run `i2st train --run {run_folder} --resume`"
        remedy = resume if unfinished else "name a folder made by `i2st train`"
        state = "the run is unfinished" if unfinished else "a finished run was needed"
        raise ConfigError(f"{path} is absent; {state}; {remedy}")
    values, weights = load_tensors(path)
    if values.get("format") != FORMAT or values.get("format_version") not in READABLE_VERSIONS:
        found = (values.get("format"), values.get("format_version"))
        raise CheckpointError(
            f"{path} has format {found[0]!r:.40} version {found[1]!r:.20}; {FORMAT} version "
            f"{FORMAT_VERSION} was needed; use the i2st that wrote it, or train again"
        )
    needed, known = _field_names()
    if not needed <= set(values) <= known:
        raise damaged(path, f"its metadata has the keys {sorted(values)!r:.80}")
    require_sound(path, values)
    return Checkpoint(path=path, info=CheckpointInfo(**values), weights=weights)


def _field_names() -> tuple[set[str], set[str]]:
    """Names of the fields that every version has, and of all."""
    every = fields(CheckpointInfo)
    without = {one.name for one in every if one.default is one.default_factory is MISSING}
    return without, {one.name for one in every}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a network, all or none.

    Args:
        network: receives the weights.
        weights: name -> tensor, as ``network.state_dict()`` names them.
        path: file they come from, for messages.

    Raises:
        CheckpointError: names, shapes or types differ from the network's, or a weight is not
            finite.
    """
    own = network.state_dict()
    differing = [
        f"{name} {_kind(weights.get(name))} there and {_kind(own.get(name))} here"
        for name in sorted({*own, *weights})
        if _kind(weights.get(name)) != _kind(own.get(name))
    ]
    if differing:
        raise CheckpointError(
            f"{path} does not fit: {', '.join(differing[:3])}"
            f"{' and more' if len(differing) > 3 else ''}; weights of an equal network were "
            "needed; give the settings it was trained with, or train again"
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise damaged(path, f"{name} is not finite")
    network.load_state_dict(dict(weights))


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
