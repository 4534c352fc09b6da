"""Where an evaluation's predictions come from: method, shards, run, and how that was trained."""

import hashlib
from pathlib import Path
from typing import Any

from i2st_model.checkpoints import Checkpoint, CheckpointInfo
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.evaluating.config import Precision
from i2st_model.features import FeatureStore
from i2st_model.methods.base import FewShotMethod
from i2st_model.records.provenance import Provenance
from i2st_model.training.config import TrainConfig

NO_SETTINGS = ("seed", "device", "log_every", "state_every", "cache_gib", "preset")
"""Fields of TrainConfig that decide no weight, or stand elsewhere: the preset in ``network``."""


def provenance_of(
    method: FewShotMethod,
    store: FeatureStore,
    checkpoint: Checkpoint | None,
    *,
    precision: Precision,
) -> Provenance:
    """Say what makes the predictions of an evaluation.

    Args:
        method: that is evaluated.
        store: what it sees.
        checkpoint: where its weights come from; None for methods without training.
        precision: of the evaluation.

    Returns:
        What a result file keeps.
    """
    trained = {} if checkpoint is None else trained_values(checkpoint)
    reader = store.reader
    if isinstance(reader, EncodedFrames) and reader.weights_of is not None:
        run, sha256 = _name_and_sha256(reader.weights_of)
        trained |= {"encoder_run": run, "encoder_sha256": sha256}
    return Provenance(
        method=method.name,
        uses_class_names=method.uses_class_names,
        digest=store.index.digest,
        precision=precision,
        frames=store.num_frames,
        **trained,
    )


def trained_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of a Provenance that a training run decides.

    Args:
        checkpoint: of the run.

    Returns:
        Name and content of the run, its seed, and what else decided its weights.
    """
    run, sha256 = _name_and_sha256(checkpoint.path)
    return {
        "run": run,
        "checkpoint_sha256": sha256,
        "train_seed": checkpoint.info.train.get("seed"),
        "training": _settings(checkpoint.info),
    }


def _settings(info: CheckpointInfo) -> dict[str, Any]:
    """All that decided weights beside the seed, with defaults that the checkpoint is older than."""
    train = {**TrainConfig().to_dict(), **info.train}
    # Runs from before it was kept do not know; the key's absence says so.
    chosen_on = {"chosen_on": info.chosen_on} if info.chosen_on else {}
    return {
        **{name: value for name, value in train.items() if name not in NO_SETTINGS},
        "network": info.network,
        "options": info.options,
        "dataset": info.dataset,
        "digest": info.digest,
        "train_classes": info.train_classes,
        "selected": info.selected,
        **chosen_on,
    }


def _name_and_sha256(checkpoint: Path) -> tuple[str, str]:
    # By the name it keeps: `latest` leads to another run tomorrow.
    return checkpoint.parent.resolve().name, hashlib.sha256(checkpoint.read_bytes()).hexdigest()
