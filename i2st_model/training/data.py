"""What a step sees of a pool: clips, their masks and base classes, whatever clips are made of.

Shape letters: B = P x M clips of the pool, T frames of a clip, S side of the mask targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from i2st_model.training.mask_sources import (
    MaskTargets,
    mask_sources,
    mask_targets,
    masks_wanted,
)
from i2st_model.training.pools import Pool
from pipeline.views import may_mirror


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One pool's clips and the episodes among them."""

    pool: Pool
    seen: Tensor
    """(B, T, ...) stem tokens, stored features, or uint8 RGB views of frames."""
    masks: MaskTargets | None
    """None where none supervise."""
    base_classes: Tensor
    """(B,) int64. Position of the clip's class among the train classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnClips:
    """Clips as one pool shows them."""

    seen: Tensor
    """(B, T, ...) on the device."""
    masks: Callable[[int, NDArray[np.int64], NDArray[np.bool_]], tuple[Tensor, Tensor]]
    """S, (n,) rows of videos, and (B,) which clips' frames and crops show their masks -> coverage
    (n, T, S, S) and valid (n, T)."""


class ClipSource(Protocol):
    """Where clips come from."""

    def draw(self, rows: NDArray[np.int64], number: int) -> DrawnClips:
        """Draw clips of (B,) videos: a function of (seed, number of the pool), for resumed runs."""
        ...


class TrainData:
    """Makes the batch of each pool.

    Args:
        config: the run's settings.
        store: says which masks there are.
        clips: where clips come from.
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
        clips: ClipSource,
        *,
        train_classes: Sequence[int],
        mask_side: int,
        device: torch.device,
    ) -> None:
        self.clips = clips
        self._mask_side, self._device = mask_side, device
        self._base_class = {number: place for place, number in enumerate(train_classes)}
        self.mask_source: dict[int, int] | None = None
        """Row of a clip -> row whose masks supervise it."""
        self.notes: list[str] = []
        """Sentences for the user."""
        if masks_wanted(config, store, mask_side):
            self.mask_source, self.notes = mask_sources(config, store, train_classes)

    def batch(self, pool: Pool, number: int) -> Batch:
        """Make the clips of one pool.

        Args:
            pool: rows and episodes.
            number: of the pool.

        Returns:
            Clips, masks and episodes, on the device.
        """
        rows = pool.rows.ravel()
        drawn = self.clips.draw(rows, number)
        base = [self._base_class[int(class_number)] for class_number in pool.classes]
        return Batch(
            pool=pool,
            seen=drawn.seen,
            masks=self._masks(rows, drawn),
            base_classes=torch.tensor(base, device=self._device).repeat_interleave(
                pool.rows.shape[1]
            ),
        )

    def _masks(self, rows: NDArray[np.int64], drawn: DrawnClips) -> MaskTargets | None:
        if self.mask_source is None:
            return None
        side, (clips, frames) = self._mask_side, drawn.seen.shape[:2]
        targets = mask_targets(
            self.mask_source, rows, (clips, frames, side, side), partial(drawn.masks, side)
        )
        return MaskTargets(
            coverage=targets.coverage.to(self._device), valid=targets.valid.to(self._device)
        )


def flips_for(config: TrainConfig, dataset_name: str) -> bool:
    """Whether clips are mirrored: as told, else unless the dataset is an ssv2."""
    if config.flips is not None:
        return config.flips
    return may_mirror(dataset_name)
