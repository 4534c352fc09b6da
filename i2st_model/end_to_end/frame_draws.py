"""Clips of stored frames for an encoder in training: random frames, crops and light.

Shape letters: B clips of the pool, T frames of a clip, S side of the view in pixels, G side of the
mask targets.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import Stream, Words
from i2st_model.end_to_end.colour_jitter import draw_factors, jitter
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.framing import Crops
from i2st_model.features import FeatureStore
from i2st_model.stored.coverage import supervises
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import DrawnClips, flips_for
from i2st_model.training.schedules import random_positions


class FrameDraws:
    """A `ClipSource` over stored frames; a clip's frames and masks are cropped and mirrored alike.

    Args:
        config: the run's settings.
        store: of the frames.
        reader: the same store's reader.
        device: where views go.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        reader: EncodedFrames,
        device: torch.device,
    ) -> None:
        self._seed, self._store, self._reader, self._device = config.seed, store, reader, device
        self._flips = flips_for(config, store.index.dataset_name)

    def draw(self, rows: NDArray[np.int64], number: int) -> DrawnClips:
        """Draw clips of videos.

        Args:
            rows: (B,) rows of train videos.
            number: of the pool.

        Returns:
            (B, T, S, S, 3) uint8 RGB, and how their masks are seen.
        """
        count, encoder = len(rows), self._reader.encoder.config
        words = Words(Stream.AUGMENT, self._seed, number)
        positions = random_positions(words, count, self._store.num_stored, self._store.num_frames)
        words = Words(Stream.CROP, self._seed, number)
        crops = self._reader.framing.draw(words, count, flips=self._flips, crop=encoder.crop)
        views = self._reader.clips.clips(rows, positions, crops).to(self._device)
        if encoder.jitter:
            words = Words(Stream.JITTER, self._seed, number)
            views = jitter(views, draw_factors(words, count, encoder.jitter))

        def masks(
            side: int, sources: NDArray[np.int64], here: NDArray[np.bool_]
        ) -> tuple[Tensor, Tensor]:
            return self._masks(side, sources, positions[here], crops.of(here))

        return DrawnClips(seen=views, masks=masks)

    def _masks(
        self, side: int, sources: NDArray[np.int64], positions: NDArray[np.int64], crops: Crops
    ) -> tuple[Tensor, Tensor]:
        """Coverage (n, T, G, G) and valid (n, T) of masks, seen as ``crops`` show them."""
        stored, clips = self._reader.masks(sources), np.arange(len(sources))[:, None]
        bits, found = stored.bits[clips, positions], stored.found[clips, positions]
        shares = self._reader.framing.coverage(bits, found, crops, side)
        return torch.from_numpy(shares), torch.from_numpy(supervises(shares, found))
