"""What a finished run says of itself in its checkpoint."""

from collections.abc import Sequence
from typing import Any

from i2st_model.checkpoints import CheckpointInfo
from i2st_model.leaks import video_hashes
from i2st_model.training.config import TrainConfig
from i2st_model.training.state import Best
from i2st_model.training.store import VideoStore


def checkpoint_info(
    config: TrainConfig,
    store: VideoStore,
    best: Best,
    *,
    train_classes: Sequence[str],
    initial: CheckpointInfo | None,
    selected: str,
    description: dict[str, Any],
) -> CheckpointInfo:
    """Describe trained weights.

    Args:
        config: the run's settings.
        store: what its shards hold.
        best: the weights that were kept.
        train_classes: classes that it trained on.
        initial: of the run whose weights it started from; what that one saw stays seen.
        selected: ``val`` or ``last``.
        description: of the learner.

    Returns:
        All but the weights.
    """
    hashes = video_hashes([store.reader.video_ids[row] for row in store.rows_of(train_classes)])
    return CheckpointInfo(
        method=config.method,
        options=dict(config.options),
        train=config.to_dict(),
        fingerprint=store.index.fingerprint,
        dataset=store.index.dataset_name,
        digest=store.index.digest,
        train_classes=seen_classes(train_classes, initial),
        train_video_hashes=sorted(
            {*hashes.tolist(), *([] if initial is None else initial.train_video_hashes)}
        ),
        step=best.step,
        val_accuracy=best.val_accuracy,
        selected=selected,
        **{"network": {}, **description},
    )


def seen_classes(train_classes: Sequence[str], initial: CheckpointInfo | None) -> list[str]:
    """Classes that a run trains on, and after them those that it started from the weights of."""
    before = [] if initial is None else initial.train_classes
    return list(dict.fromkeys([*train_classes, *before]))
