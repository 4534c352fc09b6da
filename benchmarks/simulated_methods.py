"""Two methods of equal true accuracy: their classes, videos and episodes are drawn afresh.

A query of class c is answered with the class m of the highest sum of: what class m pulls, what the
support clips of m pull, and, where m = c, how easy the class and the query are. Each method has its
own draw of all of these from the same laws, so no method is better, though on any given classes and
videos one of them is.
"""

import numpy as np
from numpy.typing import NDArray

from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.provenance import Provenance
from i2st_model.records.results import Result


def draw_set(
    rng: np.random.Generator,
    *,
    classes: int = 10,
    videos: int = 30,
    episodes: int = 1000,
    way: int = 5,
    shot: int = 1,
    queries: int = 1,
    disjoint_sources: int = 0,
) -> EpisodeSet:
    """Episodes over classes with the same number of videos each.

    Where ``disjoint_sources`` is not 0, each source has as many clips, one after the other, and no
    support clip is of a source of its class's queries.
    """
    names = [f"c{number:03d}/{video:03d}" for number in range(classes) for video in range(videos)]
    chosen = rng.random((episodes, classes)).argsort(axis=1)[:, :way]
    order = rng.random((episodes, way, videos))
    if disjoint_sources:
        order += _beside_queries(order, queries, disjoint_sources)
    clips = order.argsort(axis=2)[:, :, : shot + queries]
    if disjoint_sources:
        clips = np.roll(clips, shot, axis=2)
    clips = clips + videos * chosen[:, :, None]
    return EpisodeSet(
        dataset="simulated",
        digest="0" * 64,
        split="test",
        seed=0,
        disjoint_groups=disjoint_sources > 0,
        dropped_classes=(),
        class_names=tuple(f"c{number:03d}" for number in range(classes)),
        video_ids=tuple(names),
        video_class=np.repeat(np.arange(classes), videos),
        support=clips[:, :, :shot],
        query=clips[:, :, shot:],
    )


def _beside_queries(order: NDArray, queries: int, clips: int) -> NDArray[np.bool_]:
    """Which videos share a source with the first ones of an order, and are not these."""
    first = order.argsort(axis=2)[:, :, :queries]
    sources = np.arange(order.shape[2]) // clips
    beside: NDArray[np.bool_] = (sources == (first // clips)[..., None]).any(axis=2)
    np.put_along_axis(beside, first, False, axis=2)
    return beside


def answer(
    rng: np.random.Generator,
    episodes: EpisodeSet,
    *,
    ease: float = 1.5,
    of_classes: float = 0.0,
    pulls: float = 0.0,
    of_videos: float = 0.0,
    of_support: float = 0.0,
    of_one_source: int = 1,
    name: str = "a",
) -> Result:
    """What one method answers; the widths are standard deviations of its effects.

    Clips of one source, as many as ``of_one_source`` says, share what a video does.
    """
    count, total = len(episodes.class_names), len(episodes.video_ids)
    easy, pull = rng.normal(0, of_classes, count), rng.normal(0, pulls, count)
    clip, support = (
        rng.normal(0, width, total // of_one_source).repeat(of_one_source)
        for width in (of_videos, of_support)
    )
    way = episodes.way
    utility = rng.gumbel(size=(*episodes.query.shape, way))
    utility += (pull[episodes.classes] + support[episodes.support].mean(axis=2))[:, None, None, :]
    own = ease + easy[episodes.classes][:, :, None] + clip[episodes.query]
    utility[:, np.arange(way), :, np.arange(way)] += own.transpose(1, 0, 2)
    made_by = Provenance(method=name, uses_class_names=False, digest="0" * 64, precision="float32")
    return Result(
        made_by=made_by,
        episodes=episodes,
        predicted=utility.argmax(axis=-1),
        video_source=np.arange(total) // of_one_source if of_one_source > 1 else None,
    )
