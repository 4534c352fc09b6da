"""Stem outputs of many videos: kept in memory where they fit a budget, else computed each time.

Shape letters: B clips, F stored frames, T frames of a clip, L grid cells, P stem channels.

The stem is fixed, so its output per video never changes. Each video goes through it alone and is
rounded to float16, whether kept or not, so both ways give the same bits.
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
        budget_bytes: most memory that the cache may take.
        device: where the stem computes and clips are returned.
    """

    def __init__(
        self,
        store: FeatureStore,
        stem: Stem,
        rows: NDArray[np.int64],
        *,
        budget_bytes: int,
        device: torch.device,
    ) -> None:
        self._store, self._stem, self._device = store, stem, device
        self._place = {int(row): place for place, row in enumerate(rows)}
        shape = (len(rows), store.num_stored, store.index.num_tokens, stem.config.stem_dim)
        self.size_bytes = int(np.prod(shape)) * BYTES_PER_VALUE
        self._kept: Tensor | None = None
        if self.size_bytes <= budget_bytes:
            self._kept = torch.empty(shape, dtype=torch.float16)
            for place, row in enumerate(rows):
                self._kept[place] = self._compute(int(row))

    @property
    def cached(self) -> bool:
        """Whether the outputs fit the budget and are kept."""
        return self._kept is not None

    def clips(self, rows: NDArray[np.int64], positions: NDArray[np.int64] | None = None) -> Tensor:
        """Stem outputs of clips.

        Args:
            rows: (B,) rows, of those given at the start.
            positions: (B, T) which stored frames form each clip; segment centres unless given.

        Returns:
            (B, T, L, P) float32 on the device.
        """
        if positions is None:
            positions = np.broadcast_to(
                self._store.test_positions, (len(rows), self._store.num_frames)
            )
        clips = [
            self._video(int(row))[torch.from_numpy(np.array(chosen))]
            for row, chosen in zip(rows, positions, strict=True)
        ]
        return torch.stack(clips).to(self._device).float()

    def _video(self, row: int) -> Tensor:
        return self._compute(row) if self._kept is None else self._kept[self._place[row]]

    @torch.no_grad()
    def _compute(self, row: int) -> Tensor:
        tokens = torch.from_numpy(self._store.reader.tokens(np.array([row]))[0])
        return self._stem(tokens.to(self._device).float()).half().cpu()
