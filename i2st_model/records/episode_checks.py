"""Whether episodes fit some shards: their videos, classes, splits, sources and content."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.stored.videos import StoredVideos
from pipeline.errors import ConfigError, RecordError

MOST_NAMED = 3


def rows_of(episodes: EpisodeSet, store: StoredVideos) -> NDArray[np.int64]:
    """Rows of the videos in some shards.

    Args:
        episodes: whose videos.
        store: shards of a dataset that has them.

    Returns:
        (V,) rows, in the order of ``video_ids``.

    Raises:
        ConfigError: a video is absent.
    """
    row_of = {video_id: row for row, video_id in enumerate(store.reader.video_ids)}
    absent = [video_id for video_id in episodes.video_ids if video_id not in row_of]
    if absent:
        raise ConfigError(
            f"{store.reader.folder} lacks {_counted(absent, len(episodes.video_ids), 'videos')} of "
            "the episodes; all are needed; extract them, or make episodes of these shards"
        )
    return np.array([row_of[video_id] for video_id in episodes.video_ids], dtype=np.int64)


def differences(episodes: EpisodeSet, store: StoredVideos) -> list[str]:
    """Compare episodes with shards.

    Args:
        episodes: from a file.
        store: shards of a dataset, of features or of frames.

    Returns:
        A clause for each thing that differs, the digest last; none where they fit.
    """
    found = []
    if episodes.dataset != store.index.dataset_name:
        found.append(f"dataset {episodes.dataset!r} there and {store.index.dataset_name!r} here")
    row_of = {video_id: row for row, video_id in enumerate(store.reader.video_ids)}
    present = [(v, row_of[v]) for v in episodes.video_ids if v in row_of]
    if len(present) < len(episodes.video_ids):
        absent = [v for v in episodes.video_ids if v not in row_of]
        found.append(f"{_counted(absent, len(episodes.video_ids), 'videos')} are absent here")
    found += _differing_classes(episodes, store, present) + _differing_splits(episodes, store)
    if episodes.disjoint_groups and len(present) == len(episodes.video_ids):
        found += _shared_groups(episodes, store, [row for _, row in present])
    if episodes.digest != store.index.digest:
        found.append(f"digest {episodes.digest[:12]} there and {store.index.digest[:12]} here")
    return found


def require_fit(
    path: Path, episodes: EpisodeSet, store: StoredVideos, *, other_features: bool
) -> None:
    """Refuse an episode file that does not fit some shards.

    Args:
        path: of the file, for the message.
        episodes: its content.
        store: shards of a dataset, of features or of frames.
        other_features: accept another digest: the same videos, seen by another encoder.

    Raises:
        RecordError: says all that differs.
    """
    found = differences(episodes, store)
    allowed = episodes.digest != store.index.digest and other_features
    if len(found) > allowed:
        only_digest = len(found) == 1 and episodes.digest != store.index.digest
        remedy = (
            "pass --other-features where the same videos seen otherwise are meant"
            if only_digest
            else "name those shards, or make episodes of these with `i2st episodes make`"
        )
        raise RecordError(
            f"{path} does not fit {store.reader.folder}: {'; '.join(found)}; the shards that the "
            f"episodes were drawn from were needed; {remedy}"
        )


def _differing_classes(
    episodes: EpisodeSet, store: StoredVideos, present: Sequence[tuple[str, int]]
) -> list[str]:
    named = dict(zip(episodes.video_ids, episodes.video_class.tolist(), strict=True))
    names, here = store.reader.class_names, store.reader.class_index
    moved = [v for v, row in present if episodes.class_names[named[v]] != names[here[row]]]
    return [f"{_counted(moved, len(present), 'videos')} are of another class here"] if moved else []


def _differing_splits(episodes: EpisodeSet, store: StoredVideos) -> list[str]:
    if not episodes.split:
        return []
    here = set(store.index.classes.get(episodes.split, ()))
    out = [name for name in episodes.class_names if name not in here]
    counted = _counted(out, len(episodes.class_names), "classes")
    return [f"{counted} are not in split {episodes.split!r} here"] if out else []


def _shared_groups(episodes: EpisodeSet, store: StoredVideos, rows: Sequence[int]) -> list[str]:
    """Episodes that promise disjoint groups and do not keep it."""
    _, groups = np.unique(store.reader.groups[list(rows)], return_inverse=True)
    flat = groups.ravel()
    bad = [
        str(number)
        for number, (support, query) in enumerate(
            zip(flat[episodes.support], flat[episodes.query], strict=True)
        )
        if np.isin(query, support).any()
    ]
    if not bad:
        return []
    return [f"{_counted(bad, episodes.num_episodes, 'episodes')} share a source here"]


def _counted(names: Sequence[str], total: int, what: str) -> str:
    some = ", ".join(repr(name) for name in names[:MOST_NAMED])
    return f"{len(names)} of {total} {what} ({some}{', ...' if len(names) > MOST_NAMED else ''})"
