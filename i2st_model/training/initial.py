"""Weights that a run starts from, where they are those of another run."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from i2st_model.checkpoints import CheckpointInfo, load_checkpoint
from i2st_model.runs import CHECKPOINT_NAME
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner
from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences

OF_ENCODER = ("name", "weights_sha256", "token_dim", "embedding_dim")
"""Keys of an encoder's fingerprint under which weights keep their meaning; a finer grid of the same
encoder may be gone on with."""


def initial_info(config: TrainConfig) -> CheckpointInfo | None:
    """Say what the weights that a run starts from have seen.

    Args:
        config: the run's settings.

    Returns:
        Of the checkpoint that ``init_from`` names; None where nothing is named.

    Raises:
        ConfigError: there is none, or it is of another method.
        CheckpointError: it is damaged.
    """
    if config.init_from is None:
        return None
    info = load_checkpoint(Path(config.init_from)).info
    if info.method != config.method:
        raise ConfigError(
            f"init_from={config.init_from} is a run of {info.method}; one of {config.method} was "
            f"needed; pass --method {info.method}, or another run"
        )
    return info


def require_same_encoder(
    config: TrainConfig, initial: CheckpointInfo, fingerprint: Mapping[str, Any]
) -> None:
    """Refuse to start from weights that read the features of another encoder.

    Args:
        config: the run's settings.
        initial: of the run that ``init_from`` names.
        fingerprint: of the shards.

    Raises:
        ConfigError: names every key that differs, with both values.
    """
    there, here = _encoder(initial.fingerprint), _encoder(fingerprint)
    differing = differences(there, here)
    if differing:
        raise ConfigError(
            f"init_from={config.init_from} was trained on features of another encoder: "
            f"{', '.join(differing)}; one encoder was needed; pass a run on {here.get('name')}, "
            f"or shards of {there.get('name')}"
        )


def _encoder(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    found = fingerprint.get("encoder")
    known = found if isinstance(found, Mapping) else {}  # a file from elsewhere may say anything
    return {name: known.get(name) for name in OF_ENCODER}


def initial_sha256(config: TrainConfig) -> str | None:
    """Hash the checkpoint that a run starts from; None where it starts from none."""
    if config.init_from is None:
        return None
    named = Path(config.init_from)
    path = named / CHECKPOINT_NAME if named.is_dir() else named
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def take_initial_weights(config: TrainConfig, learner: Learner) -> None:
    """Load the weights that a run starts from, stem and all, into its learner.

    Args:
        config: names another run.
        learner: receives the weights.

    Raises:
        CheckpointError: they do not fit the learner.
    """
    assert config.init_from is not None
    checkpoint = load_checkpoint(Path(config.init_from))
    learner.load_weights(checkpoint.weights, checkpoint.path)
