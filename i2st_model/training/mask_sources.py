"""Which masks supervise which clips, and the targets made of them.

Shape letters: B clips, T frames of a clip, S side of the mask targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from pipeline.errors import ConfigError

MAX_LOOKED_AT = 1000
"""Train videos, evenly spread, among which at least one must have a mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskTargets:
    """Supervision of the instance masks."""

    coverage: Tensor
    """(B, T, S, S) float in [0, 1]."""
    valid: Tensor
    """(B, T) bool."""


def masks_wanted(config: TrainConfig, store: FeatureStore, mask_side: int) -> bool:
    """Whether masks supervise a run.

    Args:
        config: the run's settings.
        store: the features.
        mask_side: S; 0 where the network makes no masks.

    Returns:
        True where the shards have the masks that are asked for.

    Raises:
        ConfigError: masks are asked for and the shards hold none.
    """
    if config.masks == "off" or config.beta == 0 or mask_side == 0:
        return False
    if not store.index.has_masks:
        raise ConfigError(
            f"the shards of {store.index.dataset_name} hold no masks, masks={config.masks!r} asks "
            "for them; extract with a segmenter, or train with --masks off"
        )
    return True


def mask_sources(
    config: TrainConfig, store: FeatureStore, train_classes: Sequence[int]
) -> dict[int, int]:
    """Row of a clip -> row whose masks supervise it; the same one unless masks are shuffled.

    Args:
        config: the run's settings.
        store: the features.
        train_classes: class numbers.

    Returns:
        One entry for each video of these classes that is of the train split; others have no masks.

    Raises:
        ConfigError: not one mask was found.
    """
    reader = store.reader
    used = np.isin(reader.class_index, list(train_classes))
    rows = np.flatnonzero(used & (np.asarray(reader.split) == "train")).tolist()
    _require_found(config, store, rows)
    if config.masks == "true":
        return {row: row for row in rows}
    order = Words(Stream.MASK_SHUFFLE, config.seed, 0).choose(len(rows), len(rows))
    # One cycle through all videos: none keeps its own masks.
    following = zip(order, order[1:] + order[:1], strict=True)
    return {rows[here]: rows[there] for here, there in following}


def _require_found(config: TrainConfig, store: FeatureStore, rows: list[int]) -> None:
    """Refuse to train for hours on masks of which not one was found."""
    looked_at = rows[:: max(1, len(rows) // MAX_LOOKED_AT)]
    if not any(store.reader.masks([row]).found.any() for row in looked_at):
        raise ConfigError(
            f"none of {len(looked_at)} train videos of {store.index.dataset_name} that "
            f"were looked at has a mask, masks={config.masks!r} asks for them; check the "
            "names of the mask files and extract again, or train with --masks off"
        )


def mask_targets(
    sources: Mapping[int, int],
    rows: NDArray[np.int64],
    shape: tuple[int, int, int, int],
    read: Callable[[NDArray[np.int64], NDArray[np.bool_]], tuple[Tensor, Tensor]],
) -> MaskTargets:
    """Targets of clips; those without a source, as under cross-validation over classes, have none.

    Args:
        sources: of `mask_sources`.
        rows: (B,) rows of the clips.
        shape: (B, T, S, S).
        read: (n,) source rows, and (B,) which clips they are for -> coverage (n, T, S, S) and valid
            (n, T) as these clips show them.

    Returns:
        Targets of the B clips, on the CPU.
    """
    coverage = torch.zeros(shape)
    valid = torch.zeros(shape[:2], dtype=torch.bool)
    here = np.array([int(row) in sources for row in rows])
    if here.any():
        where = torch.from_numpy(here)
        coverage[where], valid[where] = read(
            np.array([sources[int(row)] for row in rows[here]]), here
        )
    return MaskTargets(coverage=coverage, valid=valid)
