"""Accuracy of a method on episodes: every video prepared once, episodes in batches.

Shape letters: V videos, E episodes, N way, q queries per class.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.checkpoints import Checkpoint
from i2st_model.copied_videos import require_no_copies
from i2st_model.drawing.class_videos import number_groups
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluating.engine import PreparedVideos, predict
from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.evaluating.evaluated import Evaluation, evaluation_of
from i2st_model.evaluating.provenance import provenance_of
from i2st_model.evaluating.scoring import prepare_videos
from i2st_model.features import FeatureStore
from i2st_model.leaks import require_unseen
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.records.episode_checks import rows_of
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result
from pipeline.devices import resolve_device

__all__ = ["EvaluateConfig", "EvaluateProgress", "Evaluation", "evaluate", "evaluate_sets"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateProgress:
    """What `evaluate` tells its caller after every batch."""

    episodes: int
    """Done so far, over all sets of episodes."""
    num_episodes: int


OnProgress = Callable[[EvaluateProgress], None]


def evaluate(
    method: FewShotMethod,
    store: FeatureStore,
    config: EvaluateConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate a method on the episodes that a config draws.

    Args:
        method: ready to use, see `load_method`.
        store: features of the dataset.
        config: which episodes.
        checkpoint: where the method's weights come from.
        on_progress: called after every batch of episodes.

    Returns:
        Accuracy with its interval, and what it is made of.

    Raises:
        ConfigError: the split does not suffice for the episodes, or training saw some of it.
        ShardError: training saw copies of some of it.
    """
    drawn = draw_episodes(store, config)
    (found,) = evaluate_sets(
        method, store, [drawn], config, checkpoint=checkpoint, on_progress=on_progress
    )
    return found


def evaluate_sets(
    method: FewShotMethod,
    store: FeatureStore,
    sets: Sequence[EpisodeSet],
    config: EvaluateConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Evaluation, ...]:
    """Evaluate a method on several sets of episodes; every video is prepared once for all.

    Args:
        method: ready to use, see `load_method`.
        store: features of a dataset that has the episodes' videos.
        sets: drawn here, or from episode files.
        config: precision, device and batches; what the sets say goes before the rest.
        checkpoint: where the method's weights come from.
        on_progress: called after every batch of episodes.

    Returns:
        An evaluation of each set, in their order.

    Raises:
        ConfigError: a video is absent, or training saw some of it.
        ShardError: training saw copies of some of it.
    """
    rows = [rows_of(episodes, store) for episodes in sets]
    if checkpoint is not None:
        for episodes in sets:
            require_unseen(checkpoint, episodes)
            require_no_copies(checkpoint, episodes, store.index)
    prepared = prepare(method, store, np.unique(np.concatenate(rows)), config)
    made_by = provenance_of(method, store, checkpoint, precision=config.precision)
    total, done, found = sum(episodes.num_episodes for episodes in sets), 0, []
    for episodes, own in zip(sets, rows, strict=True):

        def tell(count: int, before: int = done) -> None:
            if on_progress is not None:
                on_progress(EvaluateProgress(episodes=before + count, num_episodes=total))

        predicted = predict(
            prepared, episodes, own, batch_episodes=config.batch_episodes, on_batch=tell
        )
        done += episodes.num_episodes
        result = Result(
            made_by=made_by,
            episodes=episodes,
            predicted=predicted,
            video_source=_sources(store.reader.groups[own]),
        )
        path = None if checkpoint is None else str(checkpoint.path)
        dataset = store.index.dataset_name
        found.append(evaluation_of(result, config, dataset=dataset, checkpoint=path))
    return tuple(found)


def _sources(groups: NDArray[np.str_]) -> NDArray[np.int64] | None:
    """Source number of each video; None where none is shared."""
    numbers = number_groups(groups)
    return numbers if len(np.unique(numbers)) < len(numbers) else None


@torch.no_grad()
def prepare(
    method: FewShotMethod, store: FeatureStore, rows: NDArray[np.int64], config: EvaluateConfig
) -> PreparedVideos:
    """Let a method prepare videos, each once.

    Args:
        method: ready to use; it is copied where it has to be widened.
        store: features of the dataset.
        rows: (V,) rows of the videos, ascending.
        config: precision and device.

    Returns:
        What the method made of them.
    """
    device = torch.device(resolve_device(config.device))
    wide = config.precision == "float64"
    used = copy.deepcopy(method).double() if wide else method
    number_type = torch.float64 if wide else torch.float32
    classes = torch.from_numpy(store.reader.class_index)

    def make(some: NDArray[np.int64]) -> dict[str, Tensor]:
        videos = torch.from_numpy(some)
        features, beside = store.test_clips(some, used.needs, with_embedding=used.needs_embedding)
        return used.prepare(
            Clips(
                features=features.to(device, number_type),
                embedding=None if beside is None else beside.to(device, number_type),
                classes=classes[videos].to(device) if used.uses_class_names else None,
                videos=videos.to(device),
            )
        )

    return PreparedVideos(method=used, tensors=prepare_videos(rows, make), rows=rows)
