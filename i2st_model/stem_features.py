"""Stem outputs of many videos: kept in memory where they fit a budget, else computed each time.

Shape letters: B clips, F stored frames, T frames of a clip, S stem outputs of a frame, P stem
channels.

The stem is fixed, so its output per video and view never changes. Each video goes through it alone
and is rounded to float16, whether kept or not, so both ways give the same bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.features import FeatureStore
from i2st_model.stem import Stem

BYTES_PER_VALUE = 2


class StemFeatures:
    """Stem outputs by row.

    Args:
        store: where tokens come from.
        stem: fitted stem, on ``device``.
        rows: rows that will be asked for.
        with_views: whether stored views of the train videos among them will be, too.
        budget_bytes: most memory that the cache may take.
        device: where the stem computes and clips are returned.
    """

    def __init__(
        self,
        store: FeatureStore,
        stem: Stem,
        rows: NDArray[np.int64],
        *,
        with_views: bool = False,
        budget_bytes: int,
        device: torch.device,
    ) -> None:
        self._store, self._stem, self._device = store, stem, device
        keys = [(int(row), 0) for row in rows]
        if with_views:
            viewed = rows[np.asarray(store.reader.split)[rows] == "train"]
            keys += [(int(row), view + 1) for row in viewed for view in range(len(store.views))]
        self._place = {key: place for place, key in enumerate(keys)}
        shape = (len(keys), store.num_stored, stem.config.num_stem_tokens, stem.config.stem_dim)
        self.size_bytes = int(np.prod(shape)) * BYTES_PER_VALUE
        self._kept: Tensor | None = None
        if self.size_bytes <= budget_bytes:
            self._kept = torch.empty(shape, dtype=torch.float16)
            for place, key in enumerate(keys):
                self._kept[place] = self._compute(*key)

    @property
    def side(self) -> int:
        """Side of the grid of cells, the last of the S outputs of a frame."""
        return self._stem.config.side

    @property
    def cached(self) -> bool:
        """Whether the outputs fit the budget and are kept."""
        return self._kept is not None

    def clips(
        self,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64] | None = None,
        views: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Stem outputs of clips.

        Args:
            rows: (B,) rows, of those given at the start.
            positions: (B, T) which stored frames form each clip; segment centres unless given.
            views: (B,) 0 for the base view, k for the k-th stored view; the base view unless given.

        Returns:
            (B, T, S, P) float32 on the device.
        """
        if positions is None:
            positions = np.broadcast_to(
                self._store.test_positions, (len(rows), self._store.num_frames)
            )
        shown = np.zeros(len(rows), np.int64) if views is None else views
        clips = [
            self._video(int(row), int(view))[torch.from_numpy(np.array(chosen))]
            for row, view, chosen in zip(rows, shown, positions, strict=True)
        ]
        return torch.stack(clips).to(self._device).float()

    def _video(self, row: int, view: int) -> Tensor:
        if self._kept is None:
            return self._compute(row, view)
        return self._kept[self._place[row, view]]

    @torch.no_grad()
    def _compute(self, row: int, view: int) -> Tensor:
        reader, which = self._store.reader, (np.array([row]), np.array([view]))
        tokens = torch.from_numpy(reader.tokens(*which)[0]).to(self._device).float()
        embedding = None
        if self._stem.reads_embedding:
            embedding = torch.from_numpy(reader.frame_embedding(*which)[0]).to(self._device).float()
        return self._stem(tokens, embedding).half().cpu()
