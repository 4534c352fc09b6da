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
) -> tuple[dict[int, int], list[str]]:
    """Row of a clip -> row whose masks supervise it; the same one unless masks are shuffled.

    Videos without a mask are among them: what supervises nothing changes no loss.

    Args:
        config: the run's settings.
        store: the features.
        train_classes: class numbers.

    Returns:
        One entry for each video of these classes that is of the train split, as others have no
        masks; and sentences for the user, on videos without a mask.

    Raises:
        ConfigError: not one mask was found.
    """
    reader = store.reader
    used = np.isin(reader.class_index, list(train_classes))
    rows: list[int] = np.flatnonzero(used & (np.asarray(reader.split) == "train")).tolist()
    masked = reader.with_masks(rows)
    if not masked.any():
        raise ConfigError(
            f"none of {len(rows)} train videos of {store.index.dataset_name} has a mask, "
            f"masks={config.masks!r} asks for them; check the names of the mask files and extract "
            "again, or train with --masks off"
        )
    unmasked = int((~masked).sum())
    told = f"{unmasked} of {len(rows)} train videos have no mask and so no mask supervision"
    notes = [told] if unmasked else []
    if config.masks == "true":
        return {row: row for row in rows}, notes
    order = Words(Stream.MASK_SHUFFLE, config.seed, 0).choose(len(rows), len(rows))
    # One cycle through all videos: none keeps its own masks.
    following = zip(order, order[1:] + order[:1], strict=True)
    return {rows[here]: rows[there] for here, there in following}, notes


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
