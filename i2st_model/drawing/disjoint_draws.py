"""Draws of clips whose queries share no source video with any support clip of the episode.

The queries are drawn first, so each stays uniform over its class and the accuracy is that of the
average clip; the support is uniform over what the queries' groups leave. A draw that leaves too
little is redrawn; where sources are so few that this keeps failing, the queries are drawn from a
random few of them instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.drawing.draws import Words

MAX_REDRAWS = 1000
UNIFORM_REDRAWS = 50
"""Beyond these the sources are so few that queries have to be gathered in some of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DisjointDraws:
    """Draws for episodes of one shape."""

    shot: int
    queries: int

    def draw(
        self, words: Words, chosen: Sequence[ClassVideos]
    ) -> tuple[list[list[int]], list[list[int]]] | None:
        """Draw the clips of one episode.

        Args:
            words: of the episode.
            chosen: the N classes of the episode.

        Returns:
            Rows of queries (N, q) and of support (N, K); None where no draw parts the groups.
        """
        for attempt in range(MAX_REDRAWS):
            one_side = attempt >= UNIFORM_REDRAWS
            positions = (self._one_side if one_side else self._uniform)(words, chosen)
            pairs = list(zip(chosen, positions, strict=True))
            taken = {videos.groups[p] for videos, picked in pairs for p in picked}
            support = [self._support_rows(words, videos, taken) for videos in chosen]
            if all(len(rows) == self.shot for rows in support):
                return [[videos.rows[p] for p in picked] for videos, picked in pairs], support
        return None

    def _uniform(self, words: Words, chosen: Sequence[ClassVideos]) -> list[list[int]]:
        """Query positions, uniform but for draws that leave their own class too little."""
        return [self._query_positions(words, videos) for videos in chosen]

    def _query_positions(self, words: Words, videos: ClassVideos) -> list[int]:
        for _ in range(UNIFORM_REDRAWS):
            picked = words.choose(len(videos.rows), self.queries)
            taken = {videos.groups[position] for position in picked}
            left = len(videos.rows) - sum(videos.group_sizes[group] for group in taken)
            if left >= self.shot:
                break
        return picked

    def _one_side(self, words: Words, chosen: Sequence[ClassVideos]) -> list[list[int]]:
        """Query positions inside as few groups, taken in random order, as hold enough of them."""
        groups = sorted({group for videos in chosen for group in videos.group_sizes})
        side: set[int] = set()
        for place in words.permutation(len(groups)):
            side.add(groups[place])
            if all(sum(v.group_sizes[g] for g in side) >= self.queries for v in chosen):
                break
        inside = [[p for p, group in enumerate(v.groups) if group in side] for v in chosen]
        return [[own[i] for i in words.choose(len(own), self.queries)] for own in inside]

    def _support_rows(self, words: Words, videos: ClassVideos, taken: set[int]) -> list[int]:
        rows: list[int] = []
        for position in words.permutation(len(videos.rows)):
            if videos.groups[position] not in taken:
                rows.append(videos.rows[position])
                if len(rows) == self.shot:
                    break
        return rows
