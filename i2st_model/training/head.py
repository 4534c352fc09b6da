"""What stands on features and learns from episodes, whether they are cached or an encoder's.

A learner (learner.py) knows where clips come from; its head knows what is made of them.

Shape letters: B clips, T frames, L grid cells, C token channels, E embedding channels, V videos;
N way, K shot, Q query clips.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.features import FeatureStore
from i2st_model.stem_features import VideoFeatures
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import Batch
from i2st_model.training.pool_losses import Losses, RatedParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a run trains on."""

    config: TrainConfig
    store: FeatureStore
    classes: Sequence[ClassVideos]
    """The train classes, in the order of a base-class head."""
    device: torch.device
    """Where everything is computed."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """(V,) rows of all videos of the train classes."""
        names = self.store.reader.class_names
        return self.store.rows_of([names[videos.number] for videos in self.classes])


class Head(ABC):
    """What is trained on features; only the head itself reads what it takes of them.

    Args:
        ground: what the run trains on.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """

    module: nn.Module
    """Holds every trained parameter."""
    mask_side = 0
    """Side of the mask targets; 0 where nothing makes masks."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.config, self.store, self.device = ground.config, ground.store, ground.device

    @abstractmethod
    def rated_parameters(self) -> list[RatedParameters]:
        """Every trained parameter once; none where the head has no weights."""

    @abstractmethod
    def begin(self) -> None:
        """Fit what a fresh run fits before its first step, and a resumed one loads."""

    @abstractmethod
    def fixed(self) -> VideoFeatures:
        """What of a video never changes while the head trains; weights are in place."""

    @abstractmethod
    def of_fixed(self, rows: NDArray[np.int64], features: Tensor) -> Any:
        """Take clips of what `fixed` makes.

        Args:
            rows: (B,) rows of their videos.
            features: (B, T, ...) float32.

        Returns:
            What `losses` and `prepare` take.
        """

    @abstractmethod
    def of_encoder(self, rows: NDArray[np.int64], tokens: Tensor, embedding: Tensor) -> Any:
        """Take what an encoder makes of clips.

        Args:
            rows: (B,) rows of their videos.
            tokens: (B, T, L, C) float32.
            embedding: (B, T, E) float32.

        Returns:
            What `losses` and `prepare` take.
        """

    @abstractmethod
    def losses(self, seen: Any, batch: Batch) -> Losses:
        """What a pool costs, in float32; the module is in training mode."""

    @abstractmethod
    def prepare(self, seen: Any) -> dict[str, Tensor]:
        """Describe clips as at test time, first axis B; the module is in test mode."""

    @abstractmethod
    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score prepared clips with leading axes (E, N, K) and (E, Q): (E, Q, N) logits."""

    def description(self) -> dict[str, Any]:
        """Fields of `CheckpointInfo` beside those of the train config; none unless said."""
        return {}
