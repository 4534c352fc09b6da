"""Result files: what methods predicted, on which episodes, and where their weights come from.

One file of `i2st_model.records.array_files` holds any number of methods and cells (ways, shots):
the episodes of each cell once, as in an episode file, and the predictions of each method. `compare`
reads them; two runs of one evaluation give the same bytes.

Shape letters: E episodes, N way, q queries per class, V videos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2st_model.records.array_files import Arrays, load_arrays, refuse, save_arrays, smallest_type
from i2st_model.records.episode_files import (
    ARRAYS,
    episode_arrays,
    episode_values,
    episodes_of,
    require_format,
)
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.provenance import Provenance, provenance_values, read_provenance

FORMAT = "i2st-results"
FORMAT_VERSION = 1
SOURCE = "video_source"
"""Array of a cell; absent in older files, and where each video has a source of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What one method predicted on one set of episodes."""

    made_by: Provenance
    episodes: EpisodeSet
    predicted: NDArray[np.int64]
    """(E, N, q) position among the episode's classes; right where it equals the middle index."""
    video_source: NDArray[np.int64] | None = None
    """(V,) number of the source that each of the episodes' videos was cut from, below V; None where
    nothing is known of sources or each video has its own."""

    def __post_init__(self) -> None:
        if self.predicted.shape != self.episodes.query.shape:
            raise ValueError(
                f"predictions {self.predicted.shape} are not those of queries "
                f"{self.episodes.query.shape}"
            )
        if not 0 <= int(self.predicted.min()) <= int(self.predicted.max()) < self.episodes.way:
            raise ValueError(f"a prediction lies outside 0 .. {self.episodes.way - 1}")
        videos = len(self.episodes.video_ids)
        if self.sources.shape != (videos,):
            raise ValueError(f"{videos} videos have sources of shape {self.sources.shape}")
        if not 0 <= int(self.sources.min()) <= int(self.sources.max()) < videos:
            raise ValueError(f"a source number lies outside 0 .. {videos - 1}")

    @property
    def sources(self) -> NDArray[np.int64]:
        """(V,) source number of each video; its own where no other is known."""
        if self.video_source is None:
            return np.arange(len(self.episodes.video_ids))
        return self.video_source

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(E, N, q): whether the prediction is the true class."""
        found: NDArray[np.bool_] = self.predicted == np.arange(self.episodes.way)[None, :, None]
        return found

    @cached_property
    def per_episode(self) -> NDArray[np.float64]:
        """(E,) accuracy in [0, 1]."""
        return self.correct.mean(axis=(1, 2), dtype=np.float64)


def save_results(path: Path, results: Sequence[Result]) -> str:
    """Write a result file, whole or not at all.

    Args:
        path: final place; its folder exists.
        results: at least one; results on one set of episodes share it, and the sources that any
            of them knows.

    Returns:
        sha256 of the file.

    Raises:
        ConfigError: the folder cannot be written.
        ResourceError: the disk is full or fails.
    """
    cells = list({id(result.episodes): result.episodes for result in results}.values())
    place = {id(cell): number for number, cell in enumerate(cells)}
    arrays: Arrays = {}
    for number, cell in enumerate(cells):
        arrays |= {f"cells/{number}/{name}": a for name, a in episode_arrays(cell).items()}
    for number, result in enumerate(results):
        if result.video_source is not None:
            name = f"cells/{place[id(result.episodes)]}/{SOURCE}"
            arrays.setdefault(name, result.video_source.astype(smallest_type(len(result.sources))))
        arrays[f"predicted/{number}"] = result.predicted.astype(smallest_type(result.episodes.way))
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cells": [episode_values(cell) for cell in cells],
        "results": [
            {"cell": place[id(one.episodes)], **provenance_values(one.made_by)} for one in results
        ],
    }
    return save_arrays(path, arrays, values)


def load_results(path: Path) -> tuple[Result, ...]:
    """Read a result file.

    Args:
        path: of the file.

    Returns:
        Its results, in the order they were saved; those of one cell share its episodes.

    Raises:
        ConfigError: there is no such file.
        RecordError: it is no result file, changed since it was written, or contradicts itself.
    """
    values, arrays, _ = load_arrays(path)
    require_format(path, values, FORMAT, FORMAT_VERSION)
    if not _are_objects(values.get("cells")) or not _are_objects(values.get("results")):
        refuse(path, "it lists no results")
    cells = [
        episodes_of(path, cell, _arrays_of(arrays, number))
        for number, cell in enumerate(values["cells"])
    ]
    listed = enumerate(values["results"])
    return tuple(
        _result(path, cells, said, arrays, f"predicted/{number}") for number, said in listed
    )


def _result(
    path: Path, cells: Sequence[EpisodeSet], said: Mapping[str, Any], arrays: Arrays, name: str
) -> Result:
    number, predicted = said.get("cell"), arrays.get(name)
    if predicted is None or type(number) is not int or not 0 <= number < len(cells):
        refuse(path, "a result lacks its episodes or predictions")
    source = arrays.get(f"cells/{number}/{SOURCE}")
    try:
        return Result(
            made_by=read_provenance(said),
            episodes=cells[number],
            predicted=predicted.astype(np.int64),
            video_source=None if source is None else source.astype(np.int64),
        )
    except ValueError as error:
        refuse(path, str(error))


def _arrays_of(arrays: Arrays, cell: int) -> Arrays:
    named = {name: arrays.get(f"cells/{cell}/{name}") for name in ARRAYS}
    return {name: array for name, array in named.items() if array is not None}


def _are_objects(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, dict) for v in values)
