"""What a finished run says of itself in its checkpoint."""

from collections.abc import Sequence
from typing import Any

from i2st_model.checkpoints import CheckpointInfo
from i2st_model.copied_videos import feature_hashes
from i2st_model.features import FeatureStore
from i2st_model.leaks import video_hashes
from i2st_model.training.config import TrainConfig
from i2st_model.training.state import Best


def checkpoint_info(
    config: TrainConfig,
    store: FeatureStore,
    best: Best,
    *,
    train_classes: Sequence[str],
    initial: CheckpointInfo | None,
    val_classes: Sequence[str],
    description: dict[str, Any],
) -> CheckpointInfo:
    """Describe trained weights.

    Args:
        config: the run's settings.
        store: what its shards hold.
        best: the weights that were kept.
        train_classes: classes that it trained on.
        initial: of the run whose weights it started from; what that one saw stays seen.
        val_classes: classes whose accuracy chose the weights; none where the last were kept.
        description: of the learner.

    Returns:
        All but the weights.
    """
    videos = [store.index.videos[row] for row in store.rows_of(train_classes)]
    hashes = video_hashes([video.video_id for video in videos]).tolist()
    return CheckpointInfo(
        method=config.method,
        options=dict(config.options),
        train=config.to_dict(),
        fingerprint=store.index.fingerprint,
        dataset=store.index.dataset_name,
        digest=store.index.digest,
        train_classes=seen_classes(train_classes, initial),
        train_video_hashes=sorted(_and_of(initial, "train_video_hashes", hashes)),
        train_feature_hashes=sorted(
            _and_of(initial, "train_feature_hashes", feature_hashes(videos))
        ),
        chosen_on=_and_of(initial, "chosen_on", val_classes),
        step=best.step,
        val_accuracy=best.val_accuracy,
        selected="val" if val_classes else "last",
        **{"network": {}, **description},
    )


def seen_classes(train_classes: Sequence[str], initial: CheckpointInfo | None) -> list[str]:
    """Classes that a run trains on, and after them those that it started from the weights of."""
    return _and_of(initial, "train_classes", train_classes)


def _and_of(initial: CheckpointInfo | None, name: str, own: Sequence[Any]) -> list[Any]:
    """A run's own entries, and after them those of the run that it started from."""
    before = [] if initial is None else getattr(initial, name)
    return list(dict.fromkeys([*own, *before]))
