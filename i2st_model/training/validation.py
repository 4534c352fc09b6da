"""The val split during training: one fixed set of episodes on which checkpoints are compared.

Shape letters: V videos, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.episodes import EpisodeSampler
from i2st_model.evaluating.engine import gathered, predict_batches
from i2st_model.evaluating.scoring import episodes_at_a_time, prepare_videos
from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner
from pipeline.errors import ConfigError


class Validation:
    """Accuracy of a learner on fixed val episodes.

    Args:
        sampler: draws the episodes.
        count: how many.
        device: the learner's.
    """

    def __init__(self, sampler: EpisodeSampler, *, count: int, device: torch.device) -> None:
        self.rows = np.array(sorted(row for videos in sampler.videos for row in videos.rows))
        """(V,) rows of the videos that episodes are drawn from."""
        drawn = sampler.batch(0, count)
        places = [np.searchsorted(self.rows, rows) for rows in (drawn.support, drawn.query)]
        support_ENK, query_ENq = (torch.from_numpy(numbers).to(device) for numbers in places)
        self._support_ENK, self._query_EQ = support_ENK, query_ENq.flatten(1)
        way, queries = query_ENq.shape[1:]
        self._true_Q = torch.arange(way, device=device).repeat_interleave(queries)

    @torch.no_grad()
    def accuracy(self, learner: Learner) -> float:
        """Percent; leaves the network in training mode."""
        learner.network.eval()
        prepared = prepare_videos(self.rows, learner.prepare)
        clips = self._support_ENK[0].numel() + self._query_EQ.shape[1]
        batches = predict_batches(
            gathered(learner.score, prepared),
            self._support_ENK,
            self._query_EQ,
            episodes_at_a_time(prepared, clips),
        )
        correct = [
            (predicted == self._true_Q).double().mean().item() * len(predicted)
            for predicted in batches
        ]
        learner.network.train()
        return 100.0 * sum(correct) / len(self._query_EQ)


def val_sampler(
    config: TrainConfig, store: FeatureStore, train_classes: Sequence[str]
) -> tuple[EpisodeSampler | None, list[str]]:
    """Find episodes to select on: as many ways as there are classes, groups disjoint if possible.

    Args:
        config: the run's settings.
        store: the features.
        train_classes: classes that training uses; they may not be selected on.

    Returns:
        The sampler, or None where the last weights have to be taken; and sentences for the user.

    Raises:
        ConfigError: a val class is also a train class, of the test split, or unknown.
    """
    if config.select == "last":
        return None, []
    names = config.val_classes
    chosen = list(names) if names is not None else _val_classes(store)
    both = sorted(set(chosen) & set(train_classes))
    if both:
        raise ConfigError(
            f"class {both[0]!r} is in the train and in the val classes; they must be disjoint; "
            "leave it out of one"
        )
    held_out = sorted(set(chosen) & set(store.index.classes.get("test", ())))
    if held_out:
        raise ConfigError(
            f"val class {held_out[0]!r} is of the test split, on which nothing is selected; "
            "classes of train or val were needed; leave it out"
        )
    videos = store.videos_of(chosen)
    for disjoint in (True, False):
        try:
            return _sampler(config, store, videos, disjoint)
        except ConfigError:
            continue
    return None, [
        f"{store.index.dataset_name} has {len(chosen)} val class{'es' * (len(chosen) != 1)} to "
        f"select on; needed: 2 with {config.shot + 1} videos each; the last weights are kept"
    ]


def _val_classes(store: FeatureStore) -> list[str]:
    return store.classes_of("val") if "val" in store.index.classes else []


def _sampler(
    config: TrainConfig, store: FeatureStore, videos: Sequence[ClassVideos], disjoint: bool
) -> tuple[EpisodeSampler, list[str]]:
    settings: dict[str, Any] = {
        "shot": config.shot,
        "seed": config.seed,
        "disjoint_groups": disjoint,
    }
    usable = EpisodeSampler(videos, way=2, drop_small_classes=True, **settings)
    way = min(config.way, len(usable.videos))
    sampler = EpisodeSampler(usable.videos, way=way, **settings)
    # Groups that span classes only show when episodes are drawn, so all are drawn now.
    sampler.batch(0, config.val_episodes)
    notes = [f"val class {name!r} has too few videos and is left out" for name in usable.dropped]
    if way < config.way:
        notes.append(
            f"selecting on {way}-way episodes: {store.index.dataset_name} has {way} val classes, "
            f"way={config.way} needs {config.way}"
        )
    return sampler, notes
