"""Drawing the episodes of an evaluation from some shards."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from i2st_model.episodes import EpisodeSampler
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.leaks import NOTHING_SEEN, Seen, without_seen
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.stored.videos import StoredVideos

DRAWN_AT_A_TIME = 10_000


def draw_episodes(
    store: StoredVideos, config: EvaluateConfig, seen: Seen = NOTHING_SEEN
) -> EpisodeSet:
    """Draw the episodes of an evaluation.

    Args:
        store: shards of the dataset, of features or of frames.
        config: which episodes.
        seen: classes and videos that are left out before anything is drawn.

    Returns:
        The episodes; a function of the dataset, the config and ``seen``.

    Raises:
        ConfigError: the classes, videos or groups do not suffice.
    """
    sampler = _sampler(store, config, seen)
    starts = range(0, config.episodes, DRAWN_AT_A_TIME)
    parts = [sampler.batch(at, min(DRAWN_AT_A_TIME, config.episodes - at)) for at in starts]
    rows = np.array(sorted(row for videos in sampler.videos for row in videos.rows))
    kept = sorted(sampler.videos, key=lambda videos: videos.number)
    class_place = {videos.number: place for place, videos in enumerate(kept)}
    return EpisodeSet(
        dataset=store.index.dataset_name,
        digest=store.index.digest,
        split="" if config.classes is not None else config.split,
        seed=config.seed,
        disjoint_groups=config.disjoint_groups,
        dropped_classes=sampler.dropped,
        class_names=tuple(videos.name for videos in kept),
        video_ids=tuple(store.reader.video_ids[row] for row in rows.tolist()),
        video_class=np.array([class_place[int(n)] for n in store.reader.class_index[rows]]),
        support=_joined([part.support for part in parts], rows),
        query=_joined([part.query for part in parts], rows),
    )


def evaluated_classes(store: StoredVideos, config: EvaluateConfig) -> list[str]:
    """Names of the classes that an evaluation draws from, small ones included."""
    if config.classes is not None:
        return list(config.classes)
    return store.classes_of(config.split)


def _sampler(store: StoredVideos, config: EvaluateConfig, seen: Seen) -> EpisodeSampler:
    what = f"split {config.split!r}" if config.classes is None else "the given classes"
    without = " without what training saw" if seen else ""
    videos = store.videos_of(evaluated_classes(store, config))
    return EpisodeSampler(
        without_seen(videos, seen, store.reader.video_ids),
        way=config.way,
        shot=config.shot,
        queries=config.queries,
        seed=config.seed,
        disjoint_groups=config.disjoint_groups,
        drop_small_classes=config.drop_small_classes,
        where=f"{what} of {store.index.dataset_name}{without}",
        remedy="choose another split or shards, or a run that saw less"
        if seen
        else "extract videos of more of its classes, or choose another split",
    )


def _joined(parts: Sequence[NDArray[np.int64]], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(rows, np.concatenate(parts)).astype(np.int64)
