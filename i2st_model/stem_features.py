"""Features of many clips: kept in memory where they fit a budget, else made each time.

Shape letters: V videos, B clips, F stored frames, T frames of a clip, S stem outputs of a frame,
P stem channels, E embedding channels.

Each video goes through the stem alone and is rounded to float16, whether kept or not, so both ways
give the same bits.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.features import FeatureStore
from i2st_model.methods import Features
from i2st_model.stem import Stem

BYTES_PER_VALUE = 2
GPU_SHARE = 0.5
"""Of the free memory of a GPU, what features may take beside a network that trains."""


class VideoFeatures(Protocol):
    """Features of one video that never change."""

    shape: tuple[int, ...]
    """Of one stored frame."""
    side: int
    """Of the grid of cells, the last of what a frame has; 0 where there is none."""

    def compute(self, row: int, view: int) -> Tensor:
        """Make (F, ...) float16 features of one video in one view."""
        ...


class ClipFeatures:
    """Fixed features by row and view, float16.

    Args:
        store: where they come from.
        features: makes those of a video.
        rows: (V,) rows that will be asked for.
        with_views: whether stored views of the train videos among the rows will be, too.
        budget_bytes: most memory that may be kept.
        device: where clips are returned; features are kept there if they fit, else on the CPU.
    """

    def __init__(
        self,
        store: FeatureStore,
        features: VideoFeatures,
        rows: NDArray[np.int64],
        *,
        with_views: bool = False,
        budget_bytes: int,
        device: torch.device,
    ) -> None:
        self._store, self._device = store, device
        self._compute, self.side = features.compute, features.side
        views = np.zeros_like(rows)
        if with_views:
            viewed = rows[np.asarray(store.reader.split)[rows] == "train"]
            shown = range(1, len(store.views) + 1)
            rows = np.concatenate([rows, np.repeat(viewed, len(shown))])
            views = np.concatenate([views, np.tile(np.asarray(shown, np.int64), len(viewed))])
        self._place = np.full((len(store.reader.split), len(store.views) + 1), -1)
        self._place[rows, views] = np.arange(len(rows))
        whole = (len(rows), store.num_stored, *features.shape)
        self.size_bytes = int(np.prod(whole)) * BYTES_PER_VALUE
        self._kept: Tensor | None = None
        if self.size_bytes <= budget_bytes:
            self._kept = torch.empty(whole, dtype=torch.float16, device=self._place_to_keep())
            for place, (row, view) in enumerate(zip(rows, views, strict=True)):
                self._kept[place] = self._compute(int(row), int(view))

    @property
    def cached(self) -> bool:
        """Whether the features fit the budget and are kept."""
        return self._kept is not None

    def clips(
        self,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64] | None = None,
        views: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Gather the features of clips.

        Args:
            rows: (B,) rows, of those given at the start.
            positions: (B, T) which stored frames form each clip; segment centres unless given.
            views: (B,) 0 for the base view, k for the k-th stored view; the base view unless given.

        Returns:
            (B, T, ...) float32 on the device.
        """
        if positions is None:
            positions = np.broadcast_to(
                self._store.test_positions, (len(rows), self._store.num_frames)
            )
        shown = np.zeros(len(rows), np.int64) if views is None else views
        if self._kept is None:
            videos = torch.stack(
                [self._compute(int(r), int(v)) for r, v in zip(rows, shown, strict=True)]
            )
            places = np.arange(len(rows))
        else:
            videos, places = self._kept, self._place[rows, shown]
        frames = torch.from_numpy(places[:, None] * videos.shape[1] + positions)
        chosen = videos.flatten(0, 1)[frames.to(videos.device)]
        return chosen.to(self._device).float()

    def _place_to_keep(self) -> torch.device:
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            if self.size_bytes <= GPU_SHARE * free:
                return self._device
        return torch.device("cpu")


class StemFeatures:
    """Stem outputs of videos: the stem is fixed, so they never change.

    Args:
        store: where tokens come from.
        stem: fitted stem, on ``device``.
        device: where it computes.
    """

    shape: tuple[int, ...]

    def __init__(self, store: FeatureStore, stem: Stem, device: torch.device) -> None:
        self._reader, self._stem, self._device = store.reader, stem, device
        self.shape = (stem.config.num_stem_tokens, stem.config.stem_dim)
        self.side = stem.config.side

    @torch.no_grad()
    def compute(self, row: int, view: int) -> Tensor:
        """Map one video to (F, S, P)."""
        which = np.array([row]), np.array([view])
        tokens = torch.from_numpy(self._reader.tokens(*which)[0]).to(self._device).float()
        embedding = None
        if self._stem.reads_embedding:
            stored = torch.from_numpy(self._reader.frame_embedding(*which)[0])
            embedding = stored.to(self._device).float()
        return self._stem(tokens, embedding).half()


class StoredFeatures:
    """Frame embeddings or tokens of videos, as the shards hold them.

    Args:
        store: where they come from.
        name: which.
    """

    shape: tuple[int, ...]

    def __init__(self, store: FeatureStore, name: Features) -> None:
        index, self._read = store.index, getattr(store.reader, name)
        if name == "tokens":
            self.shape, self.side = (index.num_tokens, index.token_dim), store.grid
        else:
            self.shape, self.side = (index.embedding_dim,), 0

    def compute(self, row: int, view: int) -> Tensor:
        """Read one video: (F, E), or (F, L, C)."""
        return torch.from_numpy(self._read(np.array([row]), np.array([view]))[0])
