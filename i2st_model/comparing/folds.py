"""Results of a class cross-validation joined into one, to compare over all of its classes.

Each fold evaluates classes of its own with weights of its own. The folds' trainings share most of
their classes, which no interval here accounts for. Results know the sources of their videos by
number, not by name, so a source whose clips lie in several folds is taken for several sources: the
interval over sources is then too narrow. Only names of sources in results could mend it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result


def join_folds(results: Sequence[Result]) -> Result:
    """Join one method's results on folds of classes into one result.

    Args:
        results: one per fold, of the same way, shot and queries; no class lies in two folds.

    Returns:
        All episodes, fold after fold; `compare` takes it. What made it is said of the first fold.
        A source whose clips lie in two folds counts once in each, see above.

    Raises:
        ValueError: the folds differ in shape or share a class or a video.
    """
    every = [result.episodes for result in results]
    videos = np.concatenate([one.video_ids for one in every])
    order = np.argsort(videos)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first_video = _starts([len(one.video_ids) for one in every])
    first_class = _starts([len(one.class_names) for one in every])
    of_class = np.concatenate(
        [one.video_class + start for one, start in zip(every, first_class, strict=True)]
    )

    def moved(clips: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        numbers = [own + start for own, start in zip(clips, first_video, strict=True)]
        found: NDArray[np.int64] = place[np.concatenate(numbers)]
        return found

    joined: EpisodeSet = replace(
        every[0],
        split="",
        class_names=tuple(name for one in every for name in one.class_names),
        dropped_classes=tuple(name for one in every for name in one.dropped_classes),
        video_ids=tuple(videos[order].tolist()),
        video_class=of_class[order],
        support=moved([one.support for one in every]),
        query=moved([one.query for one in every]),
    )
    predicted = np.concatenate([result.predicted for result in results])
    sources = [one.sources + start for one, start in zip(results, first_video, strict=True)]
    known = any(one.video_source is not None for one in results)
    return replace(
        results[0],
        episodes=joined,
        predicted=predicted,
        video_source=np.concatenate(sources)[order] if known else None,
    )


def _starts(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths)[:-1].tolist()]
