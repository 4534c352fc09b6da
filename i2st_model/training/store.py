"""What training asks of a store of videos, whether it holds features or frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.class_videos import ClassVideos
from pipeline.shards.index import ShardIndex


class VideoReader(Protocol):
    """Whose the rows are."""

    @property
    def folder(self) -> Path:
        """Of the shards."""
        ...

    @property
    def video_ids(self) -> Sequence[str]:
        """By row."""
        ...

    @property
    def class_names(self) -> list[str]:
        """By class number."""
        ...

    @property
    def class_index(self) -> NDArray[np.int64]:
        """(rows,) class numbers."""
        ...


class VideoStore(Protocol):
    """Videos by row, with the names of their classes."""

    index: ShardIndex
    num_stored: int
    """F, frames stored of each video."""
    num_frames: int
    """T, frames of a clip."""

    @property
    def reader(self) -> VideoReader:
        """The shards."""
        ...

    def classes_of(self, split: str) -> list[str]:
        """Names of a split's classes that have videos here, in manifest order."""
        ...

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Rows of all videos of the named classes, ascending."""
        ...

    def videos_of(self, names: Sequence[str]) -> list[ClassVideos]:
        """Rows and groups of the named classes, in the order given."""
        ...
