"""What the network sees of a pool: clips in random views, their masks and base classes.

Shape letters: B = P x M clips of the pool, T frames of a clip, L = g x g grid cells, P stem
channels, S side of the mask targets.

Everything drawn here is a function of (seed, number of the pool): a resumed run sees the same data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.stem_features import StemFeatures
from i2st_model.training.config import TrainConfig
from i2st_model.training.mask_sources import (
    MaskTargets,
    mask_sources,
    mask_targets,
    masks_wanted,
)
from i2st_model.training.pools import Pool
from i2st_model.training.schedules import random_positions
from i2st_model.training.view_draws import ViewDraws
from pipeline.views import may_mirror


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch:
    """One pool's clips and the episodes among them."""

    pool: Pool
    stem_tokens: Tensor
    """(B, T, L, P) float32."""
    masks: MaskTargets | None
    base_classes: Tensor
    """(B,) int64. Position of the clip's class among the train classes."""


class TrainData:
    """Makes the batch of each pool.

    Args:
        config: the run's settings.
        store: where masks come from.
        stem_features: where clips come from.
        train_classes: class numbers in the order of the base-class head.
        mask_side: S; 0 where the network makes no masks.
        device: where batches go.

    Raises:
        ConfigError: masks are asked for and the shards hold none, or none was found.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        stem_features: StemFeatures,
        train_classes: Sequence[int],
        mask_side: int,
        device: torch.device,
    ) -> None:
        self.config, self.store, self.device = config, store, device
        self.stem_features, self.mask_side = stem_features, mask_side
        self.flips = flips_for(config, store.index.dataset_name)
        self.views = ViewDraws(config, store)
        self._base_class = {number: place for place, number in enumerate(train_classes)}
        supervised = masks_wanted(config, store, mask_side)
        self.mask_source = mask_sources(config, store, train_classes) if supervised else None

    def batch(self, pool: Pool, number: int) -> TrainBatch:
        """Make the clips of one pool.

        Args:
            pool: rows and episodes.
            number: of the pool.

        Returns:
            Clips, masks and episodes, on the device.
        """
        rows = pool.rows.ravel()
        words = Words(Stream.AUGMENT, self.config.seed, number)
        positions = random_positions(words, len(rows), self.store.num_stored, self.store.num_frames)
        mirrored = np.array([self.flips and words.below(2) == 1 for _ in rows])
        views, mirrored = self.views.draw(number, rows, mirrored)
        clips = self.stem_features.clips(rows, positions, views)
        base = [self._base_class[int(number)] for number in pool.classes]
        return TrainBatch(
            pool=pool,
            stem_tokens=flip_tokens(clips, mirrored, self.stem_features.side),
            masks=self._masks(rows, positions, mirrored, views),
            base_classes=torch.tensor(base, device=self.device).repeat_interleave(
                pool.rows.shape[1]
            ),
        )

    def _masks(
        self,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
        views: NDArray[np.int64] | None,
    ) -> MaskTargets | None:
        if self.mask_source is None:
            return None

        def read(sources: NDArray[np.int64], here: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
            shown = None if views is None else views[here]
            return self.store.mask_targets(sources, self.mask_side, positions[here], shown)

        shape = (*positions.shape, self.mask_side, self.mask_side)
        targets = mask_targets(self.mask_source, rows, shape, read)
        chosen = torch.from_numpy(mirrored)
        coverage = targets.coverage
        coverage[chosen] = coverage[chosen].flip(-1)
        return MaskTargets(coverage=coverage.to(self.device), valid=targets.valid.to(self.device))


def flips_for(config: TrainConfig, dataset_name: str) -> bool:
    """Whether clips are mirrored: as told, else unless the dataset is an ssv2."""
    if config.flips is not None:
        return config.flips
    return may_mirror(dataset_name)


def flip_tokens(tokens: Tensor, mirrored: NDArray[np.bool_], grid: int) -> Tensor:
    """Reverse the columns of the token grid of the chosen clips.

    Args:
        tokens: (B, T, S, P) float, the last L of S row-major cells. Changed in place; what comes
            before the cells has no sides.
        mirrored: (B,) bool.
        grid: g, L = g x g.

    Returns:
        The same tensor.
    """
    chosen = torch.from_numpy(np.flatnonzero(mirrored)).to(tokens.device)
    clips = tokens[chosen]
    first = tokens.shape[2] - grid * grid
    clips[:, :, first:] = clips[:, :, first:].unflatten(2, (grid, grid)).flip(3).flatten(2, 3)
    tokens[chosen] = clips
    return tokens
