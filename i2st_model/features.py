"""What the shards hold, as torch tensors: clips of T of F stored frames, masks, train statistics.

Shape letters: V videos, B clips, F stored frames, T frames of a clip, L grid cells, C token
channels, E embedding features, S mask slots.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos, group_videos
from i2st_model.drawing.draws import Stream, Words
from pipeline.clips import clip_positions
from pipeline.errors import ConfigError
from pipeline.masks import grid_coverage
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import MaskRows
from pipeline.views import BASE, DEFAULT_GEOMETRY, View, mask_window, views_named

MAX_COVERAGE = 0.95
"""A mask over more of the view than this says nothing about where the action is (method.md 3.3)."""
VIDEOS_AT_A_TIME = 32


class FeatureReader(Protocol):
    """What a FeatureStore needs of `pipeline.shards.reader.ShardReader`."""

    folder: Path
    index: ShardIndex
    video_ids: tuple[str, ...]
    class_names: list[str]
    class_index: NDArray[np.int64]
    split: NDArray[np.str_]
    groups: NDArray[np.str_]

    def tokens(self, rows: ArrayLike, views: ArrayLike | None = None) -> NDArray[np.float16]:
        """Return (B, F, L, C) of the stored view of each row; the base view unless given."""
        ...

    def frame_embedding(
        self, rows: ArrayLike, views: ArrayLike | None = None
    ) -> NDArray[np.float16]:
        """Return (B, F, E), as `tokens` does."""
        ...

    def masks(self, rows: ArrayLike, views: ArrayLike | None = None) -> MaskRows:
        """Return masks of train videos as the view shows them, with a leading axis B."""
        ...


class FeatureStore:
    """Torch views of one folder of shards.

    Args:
        reader: the shards.
        num_frames: T, frames of a clip; all stored frames unless given.

    Raises:
        ConfigError: more frames are asked for than are stored, the shards hold no features, or
            they were seen in a way that is unknown here.
    """

    def __init__(self, reader: FeatureReader, *, num_frames: int | None = None) -> None:
        self.reader = reader
        self.index = reader.index
        if self.index.stores != "features":
            raise ConfigError(
                f"{reader.folder} holds {self.index.stores}; features were needed; extract into "
                "another folder with `--store features`"
            )
        self.num_stored = reader.index.num_frames
        self.num_frames = self.num_stored if num_frames is None else num_frames
        if not 1 <= self.num_frames <= self.num_stored:
            raise ConfigError(
                f"frames={self.num_frames} per clip, the shards of {self.index.dataset_name} store "
                f"{self.num_stored}; 1 to {self.num_stored} is needed; lower it or extract again"
            )
        self.test_positions = np.asarray(clip_positions(self.num_stored, self.num_frames))
        self.grid = round(self.index.num_tokens**0.5)
        self._class_number = {name: n for n, name in enumerate(reader.class_names)}
        view = self.index.fingerprint.get("view") or {}
        self._geometry = view.get("geometry", DEFAULT_GEOMETRY)
        self.views: tuple[View, ...] = views_named(self.index.view_names, self._geometry)
        """Stored views of train videos beside the base view."""

    def classes_of(self, split: str) -> list[str]:
        """Names of a split's classes that have videos here, in manifest order.

        Args:
            split: train, val or test.

        Returns:
            Class names.

        Raises:
            ConfigError: the dataset has no such split.
        """
        names = self.index.classes.get(split)
        if names is None:
            known = ", ".join(self.index.classes)
            raise ConfigError(
                f"{self.index.dataset_name} has no split {split!r}; known: {known}; pass one"
            )
        present = set(np.unique(self.reader.class_index).tolist())
        return [name for name in names if self._class_number[name] in present]

    def class_numbers(self, names: Sequence[str]) -> list[int]:
        """Class numbers of class names.

        Args:
            names: of classes, in any order.

        Returns:
            Their positions in the manifest, in the order given.

        Raises:
            ConfigError: the dataset has no such class.
        """
        unknown = [name for name in names if name not in self._class_number]
        if unknown:
            raise ConfigError(
                f"{self.index.dataset_name} has no class {unknown[0]!r}; one of its "
                f"{len(self._class_number)} classes is needed; `i2st manifest show` lists them"
            )
        return [self._class_number[name] for name in names]

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Rows of all videos of the named classes, ascending."""
        return np.flatnonzero(np.isin(self.reader.class_index, self.class_numbers(names)))

    def videos_of(self, names: Sequence[str]) -> list[ClassVideos]:
        """Rows and groups of the named classes, in the order given; for samplers of episodes."""
        return group_videos(
            self.reader.class_index,
            self.reader.groups,
            self.class_numbers(names),
            self.reader.class_names,
        )

    def tokens(self, rows: NDArray[np.int64], positions: NDArray[np.int64] | None = None) -> Tensor:
        """Tokens of clips.

        Args:
            rows: (B,) rows of videos.
            positions: (B, T) which stored frames form each clip; segment centres unless given.

        Returns:
            (B, T, L, C) float32.
        """
        return torch.from_numpy(self._choose(self.reader.tokens(rows), positions)).float()

    def frame_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Encoder's own embedding of the segment centres of each clip: (B, T, E) float32."""
        return torch.from_numpy(self._choose(self.reader.frame_embedding(rows), None)).float()

    def mask_targets(
        self,
        rows: NDArray[np.int64],
        side: int,
        positions: NDArray[np.int64] | None = None,
        views: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the network should find in each frame of training clips.

        Args:
            rows: (B,) rows of train videos.
            side: cells along each axis of the target.
            positions: (B, T) as for ``tokens``.
            views: (B,) 0 for the base view, k for the k-th of `views`; the base view unless given.

        Returns:
            (B, T, side, side) float32 share of each cell of the encoder's view that actor and
            objects cover; and (B, T) bool, False where nothing was found or nearly all is covered.

        Raises:
            ShardError: a row is not of the train split.
        """
        masks = self.reader.masks(rows, views)
        bits, found = self._choose(masks.bits, positions), self._choose(masks.found, positions)
        shown = np.zeros(len(rows), np.int64) if views is None else views
        coverage = np.empty((*found.shape[:2], side, side), np.float32)
        for number in np.unique(shown):
            here = shown == number
            window = mask_window(self._geometry, (BASE, *self.views)[number])
            coverage[here] = grid_coverage(bits[here], found[here], side, window)
        return torch.from_numpy(coverage), torch.from_numpy(supervises(coverage, found))

    def mean_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Mean over videos and stored frames of the encoder's embedding: (E,) float32."""
        total = np.zeros(self.index.embedding_dim, dtype=np.float64)
        for start in range(0, len(rows), VIDEOS_AT_A_TIME):
            part = self.reader.frame_embedding(rows[start : start + VIDEOS_AT_A_TIME])
            total += part.sum(axis=(0, 1), dtype=np.float64)
        return torch.from_numpy(total / max(1, len(rows) * self.num_stored)).float()

    def train_mean(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Mean frame embedding of train videos; the bound is for stores that encode frames.

        Args:
            rows: (B,) rows of the videos.
            seed: of the draw, where not all frames are taken.
            max_frames: most that are taken where each has to be encoded.

        Returns:
            (E,) float32.
        """
        return self.mean_embedding(rows)

    def token_sample(self, rows: NDArray[np.int64], *, seed: int, max_tokens: int) -> Tensor:
        """Tokens of whole frames, drawn over as many of the videos as the bound allows.

        Args:
            rows: (B,) rows of the videos to draw from.
            seed: 0 .. 2**64 - 1.
            max_tokens: bound on the number of tokens.

        Returns:
            (n, C) float32, n at most ``max_tokens`` (at least one frame).
        """
        most = max(1, max_tokens // self.index.num_tokens)
        kept = [
            self.reader.tokens(row)[0, chosen].reshape(-1, self.index.token_dim)
            for row, chosen in self._drawn_frames(rows, seed, most)
        ]
        return torch.from_numpy(np.concatenate(kept)).float()

    def embedding_sample(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Frame embeddings, drawn over as many of the videos as the bound allows.

        Args:
            rows: (B,) rows of the videos to draw from.
            seed: 0 .. 2**64 - 1.
            max_frames: bound on their number.

        Returns:
            (n, E) float32, n at most ``max_frames``.
        """
        kept = [
            self.reader.frame_embedding(row)[0, chosen]
            for row, chosen in self._drawn_frames(rows, seed, max_frames)
        ]
        return torch.from_numpy(np.concatenate(kept)).float()

    def stem_samples(
        self, rows: NDArray[np.int64], *, seed: int, max_tokens: int, with_embedding: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What a network's stem is fitted to.

        Args:
            rows: (B,) rows of train videos.
            seed: 0 .. 2**64 - 1.
            max_tokens: bound on the number of tokens and on that of frame embeddings.
            with_embedding: whether the stem reads frame embeddings too.

        Returns:
            (n, C) float32 tokens, and (m, E) float32 frame embeddings or None.
        """
        tokens = self.token_sample(rows, seed=seed, max_tokens=max_tokens)
        if not with_embedding:
            return tokens, None
        return tokens, self.embedding_sample(rows, seed=seed, max_frames=max_tokens)

    def _drawn_frames(
        self, rows: NDArray[np.int64], seed: int, most: int
    ) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
        """At most ``most`` frames in all: (1,) row of a video, and which of its frames."""
        words = Words(Stream.TOKEN_SAMPLE, seed, 0)
        left = min(most, len(rows) * self.num_stored)
        per_video = -(-left // len(rows))
        for place in words.permutation(len(rows)):
            chosen = words.choose(self.num_stored, min(per_video, left))
            yield rows[place : place + 1], chosen
            left -= len(chosen)
            if not left:
                return

    def _choose(self, stored: NDArray, positions: NDArray[np.int64] | None) -> NDArray:
        """Take T of the F stored frames along axis 1."""
        if positions is None:
            if self.num_frames == self.num_stored:
                return np.asarray(stored)
            return np.asarray(stored)[:, self.test_positions]
        return np.asarray(stored)[np.arange(len(stored))[:, None], positions]


def supervises(coverage: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether masks teach anything: something is found, in view, and not nearly everything.

    Args:
        coverage: (..., S, S) share of each cell of a view.
        found: (..., slots).

    Returns:
        (...) bool.
    """
    share = coverage.mean(axis=(-2, -1))
    valid: NDArray[np.bool_] = found.any(axis=-1) & (share > 0) & (share <= MAX_COVERAGE)
    return valid
