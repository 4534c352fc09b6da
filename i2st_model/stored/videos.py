"""Which videos some shards hold, by row: their classes and sources, features or frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.class_videos import ClassVideos, group_videos
from pipeline.errors import ConfigError
from pipeline.shards.index import ShardIndex


class VideoReader(Protocol):
    """What `StoredVideos` needs of `pipeline.shards.reader.ShardReader`; arrays are by row."""

    folder: Path
    index: ShardIndex
    video_ids: tuple[str, ...]
    class_names: list[str]
    class_index: NDArray[np.int64]
    split: NDArray[np.str_]
    groups: NDArray[np.str_]


class StoredVideos:
    """Videos of one folder of shards; enough to draw and to check episodes.

    Args:
        reader: the shards, of features or of frames.
    """

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.index = reader.index
        self._class_number = {name: n for n, name in enumerate(reader.class_names)}

    def classes_of(self, split: str) -> list[str]:
        """Names of a split's classes that have videos here, in manifest order.

        Args:
            split: train, val or test.

        Returns:
            Class names.

        Raises:
            ConfigError: the dataset has no such split.
        """
        names = self.index.classes.get(split)
        if names is None:
            known = ", ".join(self.index.classes)
            raise ConfigError(
                f"{self.index.dataset_name} has no split {split!r}; known: {known}; pass one"
            )
        present = set(np.unique(self.reader.class_index).tolist())
        return [name for name in names if self._class_number[name] in present]

    def class_numbers(self, names: Sequence[str]) -> list[int]:
        """Class numbers of class names.

        Args:
            names: of classes, in any order.

        Returns:
            Their positions in the manifest, in the order given.

        Raises:
            ConfigError: the dataset has no such class.
        """
        unknown = [name for name in names if name not in self._class_number]
        if unknown:
            raise ConfigError(
                f"{self.index.dataset_name} has no class {unknown[0]!r}; one of its "
                f"{len(self._class_number)} classes is needed; `i2st manifest show` lists them"
            )
        return [self._class_number[name] for name in names]

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Rows of all videos of the named classes, ascending."""
        return np.flatnonzero(np.isin(self.reader.class_index, self.class_numbers(names)))

    def videos_of(self, names: Sequence[str]) -> list[ClassVideos]:
        """Rows and groups of the named classes, in the order given; for samplers of episodes."""
        return group_videos(
            self.reader.class_index,
            self.reader.groups,
            self.class_numbers(names),
            self.reader.class_names,
        )
