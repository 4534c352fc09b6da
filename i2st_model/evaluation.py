"""Accuracy of a method on the episodes of a split: every video prepared once, episodes in batches.

Shape letters: E episodes of a batch, N way, q queries per class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.checkpoints import Checkpoint
from i2st_model.compatibility import require_unseen
from i2st_model.episodes import EpisodeSampler
from i2st_model.features import FeatureStore
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.scoring import (
    Predictions,
    episode_batches,
    episodes_at_a_time,
    places_of,
    predict_episodes,
    prepare_videos,
)
from i2st_model.statistics import Accuracy, mean_accuracy
from pipeline.devices import resolve_device
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Settings of an evaluation. The defaults are the field's protocol (method.md 3.4)."""

    split: str = "test"
    classes: tuple[str, ...] | None = None
    """Evaluate on these instead of the split's; for cross-validation over classes."""
    way: int = 5
    shot: int = 1
    queries: int = 1
    """Per class."""
    episodes: int = 10_000
    seed: int = 0
    """Of the episodes: the same seed gives all methods the same episodes."""
    disjoint_groups: bool = False
    """Keep query and support clips of one source apart. The field does not; it is harder."""
    drop_small_classes: bool = False
    """Leave out classes with too few videos instead of refusing."""
    batch_episodes: int | None = None
    """Episodes at a time, None = what suits the device; decides time and memory, not the result."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 2), ("batch_episodes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}; at least {least} is needed; raise {name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found."""

    method: str
    dataset: str
    config: EvaluateConfig
    accuracy: Accuracy
    per_class: dict[str, float]
    """Class -> percent of its queries that were recognised; classes that were never drawn lack."""
    per_episode: NDArray[np.float64]
    """(episodes,) accuracy in [0, 1], for paired differences."""
    predictions: Predictions
    num_videos: int
    """Of the classes that episodes are drawn from."""
    digest: str
    """Of the shards."""
    checkpoint: str | None
    """Path of the checkpoint, None for methods without training."""
    dropped_classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values; accuracies in percent."""
        config = self.config
        return {
            "method": self.method,
            "dataset": self.dataset,
            "split": config.split,
            "classes": None if config.classes is None else list(config.classes),
            "way": config.way,
            "shot": config.shot,
            "queries": config.queries,
            "episodes": config.episodes,
            "seed": config.seed,
            "disjoint_groups": config.disjoint_groups,
            "accuracy": self.accuracy.mean,
            "half_width": self.accuracy.half_width,
            "num_classes": len(self.per_class),
            "num_videos": self.num_videos,
            "per_class": self.per_class,
            "dropped_classes": list(self.dropped_classes),
            "digest": self.digest,
            "checkpoint": self.checkpoint,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateProgress:
    """What `evaluate` tells its caller after every batch."""

    episodes: int
    """Done so far."""
    num_episodes: int


def evaluate(
    method: FewShotMethod,
    store: FeatureStore,
    config: EvaluateConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[[EvaluateProgress], None] | None = None,
) -> Evaluation:
    """Evaluate a method.

    Args:
        method: ready to use, see `load_method`.
        store: features of the dataset.
        config: which episodes.
        checkpoint: where the method's weights come from.
        on_progress: called after every batch of episodes.

    Returns:
        Accuracy with its interval, and what it is made of.

    Raises:
        ConfigError: the split does not suffice for the episodes, or a class was trained on.
    """
    names = list(config.classes) if config.classes is not None else store.classes_of(config.split)
    if checkpoint is not None:
        require_unseen(checkpoint.info.train_classes, names, run=checkpoint.path.parent)
    sampler = _sampler(config, store, names)
    rows = np.array(sorted(row for videos in sampler.videos for row in videos.rows))
    device = torch.device(resolve_device(config.device))
    prepared = _prepare(method, store, rows, device)
    places = places_of(rows, len(store.reader.class_index), device)
    parts: list[Predictions] = []
    clips = config.way * (config.shot + config.queries)
    size = config.batch_episodes or episodes_at_a_time(prepared, clips)
    for episode in episode_batches(sampler, config.episodes, size):
        parts.append(predict_episodes(episode, places, prepared, method.score))
        if on_progress is not None:
            done = episode.number + len(episode.classes)
            on_progress(EvaluateProgress(episodes=done, num_episodes=config.episodes))
    predictions = Predictions(
        classes=np.concatenate([part.classes for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
    )
    per_episode = predictions.correct.mean(axis=(1, 2), dtype=np.float64)
    return Evaluation(
        method=method.name,
        dataset=store.index.dataset_name,
        config=config,
        accuracy=mean_accuracy(per_episode),
        per_class=per_class_accuracy(predictions, store.reader.class_names),
        per_episode=per_episode,
        predictions=predictions,
        num_videos=len(rows),
        digest=store.index.digest,
        checkpoint=None if checkpoint is None else str(checkpoint.path),
        dropped_classes=sampler.dropped,
    )


def per_class_accuracy(predictions: Predictions, class_names: Sequence[str]) -> dict[str, float]:
    """Percent of each class's queries that were recognised, over all episodes that drew it.

    Args:
        predictions: of all episodes.
        class_names: names by class number.

    Returns:
        Class name -> percent, in the order of class numbers; classes never drawn are absent.
    """
    share = predictions.correct.mean(axis=2)
    drawn = np.bincount(predictions.classes.ravel(), minlength=len(class_names))
    right = np.bincount(
        predictions.classes.ravel(), weights=share.ravel(), minlength=len(class_names)
    )
    return {
        class_names[int(number)]: float(100.0 * right[number] / drawn[number])
        for number in np.flatnonzero(drawn)
    }


def _sampler(config: EvaluateConfig, store: FeatureStore, names: Sequence[str]) -> EpisodeSampler:
    what = f"split {config.split!r}" if config.classes is None else "the given classes"
    return EpisodeSampler(
        store.videos_of(names),
        way=config.way,
        shot=config.shot,
        queries=config.queries,
        seed=config.seed,
        disjoint_groups=config.disjoint_groups,
        drop_small_classes=config.drop_small_classes,
        where=f"{what} of {store.index.dataset_name}",
    )


@torch.no_grad()
def _prepare(
    method: FewShotMethod, store: FeatureStore, rows: NDArray[np.int64], device: torch.device
) -> dict[str, Tensor]:
    embedding = store.frame_embedding
    read = store.tokens if method.needs == "tokens" else embedding
    classes = torch.from_numpy(store.reader.class_index)

    def prepare(some: NDArray[np.int64]) -> dict[str, Tensor]:
        videos = torch.from_numpy(some)
        return method.prepare(
            Clips(
                features=read(some).to(device),
                embedding=embedding(some).to(device) if method.needs_embedding else None,
                classes=classes[videos].to(device) if method.uses_class_names else None,
                videos=videos.to(device),
            )
        )

    return prepare_videos(rows, prepare)
