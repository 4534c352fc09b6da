"""What an encoder in training sees of a pool: clips in random crops and light, and their masks.

Shape letters: B = P x M clips of the pool, T frames of a clip, S side of the view in pixels.

Everything drawn here is a function of (seed, number of the pool): a resumed run sees the same data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import Stream, Words
from i2st_model.end_to_end.colour_jitter import draw_factors, jitter
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.framing import Crops
from i2st_model.features import FeatureStore, supervises
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import flips_for
from i2st_model.training.mask_sources import MaskTargets, mask_sources, mask_targets, masks_wanted
from i2st_model.training.pools import Pool
from i2st_model.training.schedules import random_positions


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameBatch:
    """One pool's clips and the episodes among them."""

    pool: Pool
    views: Tensor
    """(B, T, S, S, 3) uint8 RGB."""
    masks: MaskTargets | None
    base_classes: Tensor
    """(B,) int64. Position of the clip's class among the train classes."""


class FrameData:
    """Makes the batch of each pool.

    Args:
        config: the run's settings.
        store: of the frames.
        reader: the same store's reader.
        train_classes: class numbers in the order of the base-class head.
        mask_side: side of the mask targets; 0 where the network makes no masks.
        device: where batches go.

    Raises:
        ConfigError: masks are asked for and the shards hold none, or none was found.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        reader: EncodedFrames,
        *,
        train_classes: Sequence[int],
        mask_side: int,
        device: torch.device,
    ) -> None:
        self.config, self.store, self.reader, self.device = config, store, reader, device
        self.mask_side = mask_side
        self.flips = flips_for(config, store.index.dataset_name)
        self._base_class = {number: place for place, number in enumerate(train_classes)}
        supervised = masks_wanted(config, store, mask_side)
        self._sources = mask_sources(config, store, train_classes) if supervised else None

    def batch(self, pool: Pool, number: int) -> FrameBatch:
        """Make the clips of one pool.

        Args:
            pool: rows and episodes.
            number: of the pool.

        Returns:
            Clips, masks and episodes, on the device.
        """
        rows, seed = pool.rows.ravel(), self.config.seed
        encoder = self.reader.encoder.config
        positions = random_positions(
            Words(Stream.AUGMENT, seed, number),
            len(rows),
            self.store.num_stored,
            self.store.num_frames,
        )
        crops = self.reader.framing.draw(
            Words(Stream.CROP, seed, number), len(rows), flips=self.flips, crop=encoder.crop
        )
        views = self.reader.clips.clips(rows, positions, crops).to(self.device)
        if encoder.jitter:
            words = Words(Stream.JITTER, seed, number)
            views = jitter(views, draw_factors(words, len(rows), encoder.jitter))
        base = [self._base_class[int(class_number)] for class_number in pool.classes]
        return FrameBatch(
            pool=pool,
            views=views,
            masks=self._masks(rows, positions, crops),
            base_classes=torch.tensor(base, device=self.device).repeat_interleave(
                pool.rows.shape[1]
            ),
        )

    def _masks(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], crops: Crops
    ) -> MaskTargets | None:
        if self._sources is None:
            return None

        def read(sources: NDArray[np.int64], here: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
            stored, clips = self.reader.masks(sources), np.arange(len(sources))[:, None]
            bits, found = stored.bits[clips, positions[here]], stored.found[clips, positions[here]]
            shares = self.reader.framing.coverage(bits, found, crops.of(here), self.mask_side)
            return torch.from_numpy(shares), torch.from_numpy(supervises(shares, found))

        shape = (*positions.shape, self.mask_side, self.mask_side)
        targets = mask_targets(self._sources, rows, shape, read)
        return MaskTargets(
            coverage=targets.coverage.to(self.device), valid=targets.valid.to(self.device)
        )
