"""Episodes as a thing of their own: which videos, by id, and who drew them.

Shape letters: E episodes, N way, K shot, q queries per class, V videos.

Rows of a dataset's shards change when a video is added; ids do not. So a set of episodes numbers
the videos of its own list of ids, and can be kept, shared and replayed on any shards of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from i2st_model.episodes import Episode


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeSet:
    """E episodes of one shape over V videos.

    Raises:
        ValueError: the parts contradict each other; the message is a clause.
    """

    dataset: str
    """Name of the manifest."""
    digest: str
    """Of the shards they were drawn from."""
    split: str
    """train, val or test; empty where the classes were given one by one."""
    seed: int
    disjoint_groups: bool
    """Whether no query clip shares its source with a support clip."""
    dropped_classes: tuple[str, ...]
    """Classes left out as too small."""
    class_names: tuple[str, ...]
    """Classes that episodes are drawn from, in manifest order."""
    video_ids: tuple[str, ...]
    """All videos of these classes, sorted."""
    video_class: NDArray[np.int64]
    """(V,) position of each video's class in ``class_names``."""
    support: NDArray[np.int64]
    """(E, N, K) positions in ``video_ids``."""
    query: NDArray[np.int64]
    """(E, N, q) positions in ``video_ids``; row n holds the queries whose true class is n."""

    def __post_init__(self) -> None:
        _check_names(self.class_names, self.video_ids)
        _check_shapes(self)
        _check_members(self)

    @property
    def way(self) -> int:
        """N."""
        return self.support.shape[1]

    @property
    def shot(self) -> int:
        """K."""
        return self.support.shape[2]

    @property
    def queries(self) -> int:
        """Query clips per class."""
        return self.query.shape[2]

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.support)

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """(E, N) positions in ``class_names``."""
        found: NDArray[np.int64] = self.video_class[self.support[:, :, 0]]
        return found

    def batch(self, first: int, count: int) -> Episode:
        """Take ``count`` episodes from ``first`` on; fewer where the set ends.

        Args:
            first: number of the first one.
            count: how many.

        Returns:
            Stacked episodes whose videos and classes are positions in this set.
        """
        chosen = slice(first, first + count)
        return Episode(
            number=first,
            classes=self.classes[chosen],
            support=self.support[chosen],
            query=self.query[chosen],
        )

    def same_episodes(self, other: "EpisodeSet") -> bool:
        """Whether both hold the same clips by id in the same places, whatever shards they are of.

        Args:
            other: to compare with.

        Returns:
            True where predictions of both may be paired.
        """
        if self.support.shape != other.support.shape or self.query.shape != other.query.shape:
            return False
        number = {video_id: place for place, video_id in enumerate(other.video_ids)}
        there = np.array([number.get(video_id, -1) for video_id in self.video_ids], np.int64)
        return bool(
            np.array_equal(there[self.support], other.support)
            and np.array_equal(there[self.query], other.query)
        )


def _check_names(class_names: Sequence[str], video_ids: Sequence[str]) -> None:
    if len(set(class_names)) != len(class_names):
        raise ValueError("a class is named twice")
    if any(first >= second for first, second in zip(video_ids, video_ids[1:], strict=False)):
        raise ValueError("its video ids are not sorted, or one occurs twice")


def _check_shapes(episodes: EpisodeSet) -> None:
    support, query = episodes.support, episodes.query
    if support.ndim != 3 or query.ndim != 3 or support.shape[:2] != query.shape[:2]:
        raise ValueError(f"support {support.shape} and query {query.shape} do not belong together")
    if episodes.video_class.shape != (len(episodes.video_ids),):
        raise ValueError(
            f"{len(episodes.video_ids)} videos have classes of shape {episodes.video_class.shape}"
        )
    if 0 in support.shape or 0 in query.shape or episodes.way < 2:
        raise ValueError(f"support {support.shape} and query {query.shape} hold no episode")


def _check_members(episodes: EpisodeSet) -> None:
    """Numbers lie in range, a row is of one class, and an episode repeats no class and no clip."""
    clips = np.concatenate([episodes.support, episodes.query], axis=2)
    _check_range("class", episodes.video_class, len(episodes.class_names))
    _check_range("video", clips, len(episodes.video_ids))
    of_clips = episodes.video_class[clips]
    _first_bad(of_clips != of_clips[:, :, :1], "mixes classes in one row")
    for what, numbers in (("class", of_clips[:, :, 0]), ("clip", clips)):
        ordered = np.sort(numbers.reshape(len(numbers), -1), axis=1)
        _first_bad(ordered[:, 1:] == ordered[:, :-1], f"holds a {what} twice")


def _check_range(what: str, numbers: NDArray[np.int64], count: int) -> None:
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise ValueError(f"a {what} number lies outside 0 .. {count - 1}")


def _first_bad(bad: NDArray[np.bool_], why: str) -> None:
    episodes = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    if episodes.size:
        raise ValueError(f"episode {episodes[0]} {why}")
