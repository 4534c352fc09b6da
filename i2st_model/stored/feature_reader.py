"""What a `FeatureStore` needs of shards: features and masks of whole videos, by row."""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from i2st_model.stored.videos import VideoReader
from pipeline.shards.reader import MaskRows


class FeatureReader(VideoReader, Protocol):
    """What a FeatureStore needs of `pipeline.shards.reader.ShardReader`."""

    def tokens(self, rows: ArrayLike, views: ArrayLike | None = None) -> NDArray[np.float16]:
        """Return (B, F, L, C) of the stored view of each row; the base view unless given."""
        ...

    def frame_embedding(
        self, rows: ArrayLike, views: ArrayLike | None = None
    ) -> NDArray[np.float16]:
        """Return (B, F, E), as `tokens` does."""
        ...

    def masks(self, rows: ArrayLike, views: ArrayLike | None = None) -> MaskRows:
        """Return masks of train videos as the view shows them, with a leading axis B."""
        ...

    def with_masks(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Return (B,): whether a mask was found in any frame of each train video."""
        ...
