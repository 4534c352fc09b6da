"""Training pools: the clips of one step, and the episodes that are formed from them.

Shape letters: P classes of the pool, M = K + q clips of each, E episodes, N way, K shot, q queries
per class.

A step encodes P x M clips once and shares them among E episodes, each of which takes N of the
classes and divides their clips anew into support and query. Encoding dominates the cost, so 64
episodes a step cost little more than one. A pool is a function of (seed, step) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.drawing.draws import Stream, Words
from i2st_model.episodes import EpisodeSampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The clips of one training step and its episodes."""

    classes: NDArray[np.int64]
    """(P,) class numbers."""
    rows: NDArray[np.int64]
    """(P, M) rows of videos."""
    support: NDArray[np.int64]
    """(E, N, K) positions in ``rows.ravel()``."""
    query: NDArray[np.int64]
    """(E, N, q) positions in ``rows.ravel()``."""


class PoolSampler:
    """Draws the pool of each step.

    Args:
        videos: the train classes.
        way: classes per episode.
        shot: support clips per class.
        queries: query clips per class.
        seed: 0 .. 2**64 - 1.
        num_classes: P at most; all classes where there are fewer.
        episodes_per_step: E of a full step.
        where: what messages call the set of classes.

    Raises:
        ConfigError: fewer than ``way`` classes hold ``shot + queries`` videos.
    """

    def __init__(
        self,
        videos: Sequence[ClassVideos],
        *,
        way: int,
        shot: int,
        queries: int,
        seed: int,
        num_classes: int,
        episodes_per_step: int,
        where: str,
    ) -> None:
        checked = EpisodeSampler(
            videos, way=way, shot=shot, queries=queries, drop_small_classes=True, where=where
        )
        self.videos, self.dropped = checked.videos, checked.dropped
        self.way, self.shot, self.queries, self.seed = way, shot, queries, seed
        self.num_classes = min(max(num_classes, way), len(self.videos))
        self.episodes_per_step = episodes_per_step

    def pool(self, step: int, episodes: int | None = None) -> Pool:
        """Draw one step's clips and episodes.

        Args:
            step: 0 for the first step.
            episodes: E; ``episodes_per_step`` unless given. Fewer are a prefix of more.

        Returns:
            Clips and episodes.
        """
        words = Words(Stream.POOL, self.seed, step)
        chosen = [self.videos[c] for c in words.choose(len(self.videos), self.num_classes)]
        num_clips = self.shot + self.queries
        rows = [draw_clips(words, videos, num_clips) for videos in chosen]
        count = self.episodes_per_step if episodes is None else episodes
        drawn = np.array(
            [self._positions(words, num_clips) for _ in range(count)], dtype=np.int64
        ).reshape(count, self.way, num_clips)
        return Pool(
            classes=np.array([videos.number for videos in chosen], dtype=np.int64),
            rows=np.array(rows, dtype=np.int64),
            support=drawn[:, :, : self.shot],
            query=drawn[:, :, self.shot :],
        )

    def _positions(self, words: Words, num_clips: int) -> list[list[int]]:
        return [
            [place * num_clips + clip for clip in words.choose(num_clips, num_clips)]
            for place in words.choose(self.num_classes, self.way)
        ]


def draw_clips(words: Words, videos: ClassVideos, count: int) -> list[int]:
    """Rows of ``count`` clips of one class, from distinct groups as far as they suffice.

    Two clips of one source are nearly the same clip: an episode that matches them teaches nothing.

    Args:
        words: where the draw comes from.
        videos: the class; it holds at least ``count`` videos.
        count: number of clips.

    Returns:
        Distinct rows, ``count`` of them.
    """
    fresh: list[int] = []
    repeated: list[int] = []
    seen: set[int] = set()
    for position in words.permutation(len(videos.rows)):
        target = repeated if videos.groups[position] in seen else fresh
        target.append(videos.rows[position])
        seen.add(videos.groups[position])
        all_seen = len(seen) == len(videos.group_sizes)
        if len(fresh) == count or (all_seen and len(fresh) + len(repeated) >= count):
            break
    return (fresh + repeated)[:count]
