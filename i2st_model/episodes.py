"""Few-shot episodes: which clips are support and query, a function of (seed, number) alone.

Shape letters: E episodes, N way, K shot, q queries per class.

An episode is a uniform draw of N classes, then of K + q distinct videos of each (as the loaders
of HyRSM, MoLo and CLIP-FSAR draw). With ``disjoint_groups`` no query clip shares a group (source
video) with any support clip of the episode, see `i2st_model.drawing.disjoint_draws`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.class_needs import ClassNeeds, some
from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.drawing.disjoint_draws import MAX_REDRAWS, DisjointDraws
from i2st_model.drawing.draws import WORD, Stream, Words
from i2st_model.drawing.word_tables import choose_table, word_table
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One N-way K-shot problem, or E of them with a leading axis E on every array."""

    number: int
    """Of the first episode where there are several; the others follow it."""
    classes: NDArray[np.int64]
    """(N,) class numbers; position n is the label n of the episode."""
    support: NDArray[np.int64]
    """(N, K) rows of videos."""
    query: NDArray[np.int64]
    """(N, q) rows of videos; row n holds the queries whose true class is n."""


class EpisodeSampler:
    """Draws episode ``number`` of ``seed``; the same in any order, process or resumed run.

    Args:
        videos: the classes to draw from.
        way: classes per episode.
        shot: support clips per class.
        queries: query clips per class.
        seed: 0 .. 2**64 - 1.
        disjoint_groups: whether support and query groups are disjoint for the whole episode.
        drop_small_classes: leave out classes with too few videos or groups instead of refusing.
        where: what the messages call the set of classes, e.g. ``split 'test' of hmdb51``.
        remedy: what to do where fewer than two classes are left, so that no way is low enough.

    Raises:
        ConfigError: the classes, videos or groups do not suffice.
    """

    def __init__(
        self,
        videos: Sequence[ClassVideos],
        *,
        way: int,
        shot: int,
        queries: int = 1,
        seed: int = 0,
        disjoint_groups: bool = False,
        drop_small_classes: bool = False,
        where: str = "the given classes",
        remedy: str = "extract videos of more classes",
    ) -> None:
        for name, value, least in (("way", way, 2), ("shot", shot, 1), ("queries", queries, 1)):
            if value < least:
                raise ConfigError(f"{name}={value}; at least {least} is needed; raise {name}")
        if not 0 <= seed < WORD:
            raise ConfigError(f"seed={seed}; 0 .. 2**64 - 1 is needed; choose another seed")
        self.way, self.shot, self.queries, self.seed = way, shot, queries, seed
        self.disjoint_groups = disjoint_groups
        self._where = where
        needs = ClassNeeds(shot=shot, queries=queries, disjoint_groups=disjoint_groups, where=where)
        small = needs.too_small(videos)
        if small and not drop_small_classes:
            raise needs.refusal(small)
        self.videos = [c for c in videos if c.name not in small]
        self.dropped = tuple(small)
        """Names of the classes left out as too small."""
        if len(self.videos) < way:
            raise needs.too_few_classes(len(self.videos), way, self.dropped, remedy)
        self._disjoint = DisjointDraws(shot=shot, queries=queries)
        self._numbers = np.array([c.number for c in self.videos], dtype=np.int64)
        self._sizes = np.array([len(c.rows) for c in self.videos], dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._rows = np.concatenate([np.asarray(c.rows, np.int64) for c in self.videos])

    def episode(self, number: int) -> Episode:
        """Draw one episode.

        Args:
            number: 0 .. 2**64 - 1.

        Returns:
            The episode, without a leading axis.

        Raises:
            ConfigError: groups that span classes left no disjoint draw in 1,000 attempts.
        """
        words = Words(Stream.EPISODE, self.seed, number)
        chosen = [self.videos[c] for c in words.choose(len(self.videos), self.way)]
        query, support = self._draw(words, chosen)
        return Episode(
            number=number,
            classes=np.array([c.number for c in chosen], dtype=np.int64),
            support=np.array(support, dtype=np.int64),
            query=np.array(query, dtype=np.int64),
        )

    def batch(self, first: int, count: int) -> Episode:
        """Draw episodes first .. first + count - 1, stacked along a leading axis E.

        Args:
            first: 0 .. 2**64 - count.
            count: E.

        Returns:
            The same episodes as `episode` draws one by one.

        Raises:
            ConfigError: as `episode`.
        """
        if not self.disjoint_groups:
            return self._batch(first, count)
        drawn = [self.episode(number) for number in range(first, first + count)]
        return Episode(
            number=first,
            classes=np.stack([episode.classes for episode in drawn]),
            support=np.stack([episode.support for episode in drawn]),
            query=np.stack([episode.query for episode in drawn]),
        )

    def _batch(self, first: int, count: int) -> Episode:
        clips = self.queries + self.shot
        words = word_table(Stream.EPISODE, self.seed, first, count, self.way * (1 + clips))
        num_classes = np.full(count, len(self.videos))
        chosen_EN = choose_table(words[:, : self.way], num_classes)
        of_clips = words[:, self.way :].reshape(count, self.way, clips)
        picked = choose_table(of_clips, self._sizes[chosen_EN])
        rows = self._rows[self._starts[chosen_EN][..., None] + picked]
        return Episode(
            number=first,
            classes=self._numbers[chosen_EN],
            support=rows[..., self.queries :],
            query=rows[..., : self.queries],
        )

    def _draw(
        self, words: Words, chosen: Sequence[ClassVideos]
    ) -> tuple[list[list[int]], list[list[int]]]:
        if self.disjoint_groups:
            parted = self._disjoint.draw(words, chosen)
            if parted is None:
                raise self._cannot_part(chosen)
            return parted
        query, support = [], []
        for videos in chosen:
            picked = words.choose(len(videos.rows), self.queries + self.shot)
            rows = [videos.rows[position] for position in picked]
            query.append(rows[: self.queries])
            support.append(rows[self.queries :])
        return query, support

    def _cannot_part(self, chosen: Sequence[ClassVideos]) -> ConfigError:
        names = some([videos.name for videos in chosen])
        return ConfigError(
            f"{self._where}: none of {MAX_REDRAWS} draws of {names} parts shot={self.shot} + "
            f"queries={self.queries} by group; their clips come from too few sources; lower shot"
        )
