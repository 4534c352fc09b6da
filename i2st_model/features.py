"""What the shards hold, as torch tensors: clips of T of F stored frames, masks, train statistics.

Shape letters: V videos, B clips, F stored frames, T frames of a clip, L grid cells, C token
channels, E embedding features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.methods import Features
from i2st_model.stored.coverage import coverage_of_views, supervises
from i2st_model.stored.feature_reader import FeatureReader
from i2st_model.stored.positions import frames_at, sampled_frames
from i2st_model.stored.videos import StoredVideos
from pipeline.clips import clip_positions
from pipeline.errors import ConfigError
from pipeline.views import DEFAULT_GEOMETRY, View, views_named

VIDEOS_AT_A_TIME = 32


class FeatureStore(StoredVideos):
    """Torch views of one folder of shards.

    Args:
        reader: the shards.
        num_frames: T, frames of a clip; all stored frames unless given.

    Raises:
        ConfigError: more frames are asked for than are stored, the shards hold no features, or
            they were seen in a way that is unknown here.
    """

    reader: FeatureReader

    def __init__(self, reader: FeatureReader, *, num_frames: int | None = None) -> None:
        super().__init__(reader)
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
        positions = clip_positions(self.num_stored, self.num_frames)
        self.test_positions = np.asarray(positions, dtype=np.int64)
        self.grid = round(self.index.num_tokens**0.5)
        view = self.index.fingerprint.get("view") or {}
        self._geometry = view.get("geometry", DEFAULT_GEOMETRY)
        self.views: tuple[View, ...] = views_named(self.index.view_names, self._geometry)
        """Stored views of train videos beside the base view."""

    def features_at(
        self, name: Features, rows: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float16]:
        """Features of some stored frames of the base view; all other methods read these.

        Args:
            name: which feature.
            rows: (B,) rows of videos.
            positions: (T,) or (B, T) which stored frames of each.

        Returns:
            (B, T, L, C) or (B, T, E).
        """
        return frames_at(np.asarray(getattr(self.reader, name)(rows)), positions)

    def tokens(self, rows: NDArray[np.int64], positions: NDArray[np.int64] | None = None) -> Tensor:
        """Tokens of clips.

        Args:
            rows: (B,) rows of videos.
            positions: (B, T) which stored frames form each clip; segment centres unless given.

        Returns:
            (B, T, L, C) float32.
        """
        chosen = self.test_positions if positions is None else positions
        return torch.from_numpy(self.features_at("tokens", rows, chosen)).float()

    def frame_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Encoder's own embedding of the segment centres of each clip: (B, T, E) float32."""
        chosen = self.features_at("frame_embedding", rows, self.test_positions)
        return torch.from_numpy(chosen).float()

    def test_clips(
        self, rows: NDArray[np.int64], name: Features, *, with_embedding: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What a method reads of clips at test time.

        Args:
            rows: (B,) rows of videos.
            name: the feature.
            with_embedding: whether frame embeddings are read beside it.

        Returns:
            (B, T, L, C) or (B, T, E) float32; and (B, T, E) float32, or None.
        """
        features = self.tokens(rows) if name == "tokens" else self.frame_embedding(rows)
        return features, self.frame_embedding(rows) if with_embedding else None

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
        chosen = self.test_positions if positions is None else positions
        bits, found = frames_at(masks.bits, chosen), frames_at(masks.found, chosen)
        coverage = coverage_of_views(
            bits,
            found,
            side,
            geometry=self._geometry,
            views=self.views,
            shown=np.zeros(len(rows), np.int64) if views is None else views,
        )
        return torch.from_numpy(coverage), torch.from_numpy(supervises(coverage, found))

    def mean_embedding(self, rows: NDArray[np.int64]) -> Tensor:
        """Mean of the encoder's embedding over videos and stored frames: (E,) float32."""
        total = np.zeros(self.index.embedding_dim, dtype=np.float64)
        for start in range(0, len(rows), VIDEOS_AT_A_TIME):
            part = self.reader.frame_embedding(rows[start : start + VIDEOS_AT_A_TIME])
            total += part.sum(axis=(0, 1), dtype=np.float64)
        return torch.from_numpy(total / max(1, len(rows) * self.num_stored)).float()

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
        return self._sample("tokens", rows, seed, most).flatten(0, 1)

    def embedding_sample(self, rows: NDArray[np.int64], *, seed: int, max_frames: int) -> Tensor:
        """Frame embeddings, drawn as `token_sample` does: (n, E) float32, n at most the bound."""
        return self._sample("frame_embedding", rows, seed, max_frames)

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

    def _sample(self, name: Features, rows: NDArray[np.int64], seed: int, most: int) -> Tensor:
        """(n, ...) float32 of ``most`` frames at most."""
        drawn = sampled_frames(rows, self.num_stored, seed=seed, most=most)
        return torch.from_numpy(
            np.concatenate([self.features_at(name, row, chosen)[0] for row, chosen in drawn])
        ).float()
