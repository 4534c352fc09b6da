"""What a few-shot method sees: clips, and what the training split says about them.

Shape letters: B clips, T frames, L grid cells, C token channels, E embedding channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """Cached features of B clips."""

    features: Tensor
    """(B, T, E) float frame embeddings, or (B, T, L, C) tokens: what the method ``needs``."""
    embedding: Tensor | None = None
    """(B, T, E) float frame embeddings beside tokens; given where a method has ``needs_embedding``.
    """
    classes: Tensor | None = None
    """(B,) int64 class numbers; given only to methods with ``uses_class_names``."""
    videos: Tensor | None = None
    """(B,) int64 row of each clip's video in its shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStatistics:
    """What a method may know before the first clip: sizes, and means of the training split."""

    embedding_dim: int
    """E. Methods with weights make layers of this size in ``fit``."""
    mean_embedding: Tensor | None = None
    """(E,) float. Mean frame embedding of the training split; None where it has no video, or the
    method has no ``needs_train_mean``."""
    class_names: tuple[str, ...] = ()
    """Names by class number, all splits; for methods with ``uses_class_names`` alone."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprint of the encoder that made the features."""
