"""Result files: what methods predicted, on which episodes, and where their weights come from.

One file of `i2st_model.records.array_files` holds any number of methods and cells (ways, shots):
the episodes of each cell once, as in an episode file, and the predictions of each method. `compare`
reads them; two runs of one evaluation give the same bytes.

Shape letters: E episodes, N way, q queries per class.
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

FORMAT = "i2st-results"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What made the predictions."""

    method: str
    uses_class_names: bool
    """Whether the method knows the names of the classes it is tested on."""
    digest: str
    """Of the shards that were read; the episodes may have been drawn from others."""
    precision: str
    """float32 or float64."""
    frames: int | None = None
    """T, of the clips that were seen; None in files from before it was kept."""
    encoder_run: str | None = None
    """Name of the run whose trained encoder made the features; None for features as stored."""
    encoder_sha256: str | None = None
    """Of that run's checkpoint."""
    run: str | None = None
    """Name of the training run's folder; None for methods without training."""
    checkpoint_sha256: str | None = None
    """Of the run's checkpoint."""
    train_seed: int | None = None
    """Seed of the training run."""
    training: Mapping[str, Any] | None = None
    """What else decided the weights: settings, shards, train classes; None in files from before it
    was kept."""

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames={self.frames}; clips have at least one")

    def run_words(self) -> str:
        """Which training run made the weights: its name, its seed and what its checkpoint holds."""
        seed = "" if self.train_seed is None else f", seed {self.train_seed}"
        return f"run {self.run}{seed}, checkpoint {(self.checkpoint_sha256 or 'unknown')[:12]}"

    def seen(self) -> str:
        """What of the videos the method saw, in words that differ where that does."""
        length = f"{self.frames} frames" if self.frames else "an unknown number of frames"
        if self.encoder_sha256 is None:
            return length
        if self.encoder_sha256 == self.checkpoint_sha256:
            return f"{length} by its own encoder"
        return f"{length} by the encoder of run {self.encoder_run} ({self.encoder_sha256[:8]})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What one method predicted on one set of episodes."""

    made_by: Provenance
    episodes: EpisodeSet
    predicted: NDArray[np.int64]
    """(E, N, q) position among the episode's classes; right where it equals the middle index."""

    def __post_init__(self) -> None:
        if self.predicted.shape != self.episodes.query.shape:
            raise ValueError(
                f"predictions {self.predicted.shape} are not those of queries "
                f"{self.episodes.query.shape}"
            )
        if not 0 <= int(self.predicted.min()) <= int(self.predicted.max()) < self.episodes.way:
            raise ValueError(f"a prediction lies outside 0 .. {self.episodes.way - 1}")

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
        results: at least one; results on one set of episodes share it.

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
        arrays[f"predicted/{number}"] = result.predicted.astype(smallest_type(result.episodes.way))
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cells": [episode_values(cell) for cell in cells],
        "results": [
            {"cell": place[id(one.episodes)], **_provenance_values(one.made_by)} for one in results
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
        _result(path, cells, said, arrays.get(f"predicted/{number}")) for number, said in listed
    )


def _result(
    path: Path, cells: Sequence[EpisodeSet], said: Mapping[str, Any], predicted: NDArray | None
) -> Result:
    number = said.get("cell")
    if predicted is None or type(number) is not int or not 0 <= number < len(cells):
        refuse(path, "a result lacks its episodes or predictions")
    made_by: dict[str, Any] = {name: said.get(name) for name in _KINDS}
    wrong = [name for name, kinds in _KINDS.items() if type(made_by[name]) not in kinds]
    if wrong:
        refuse(path, f"the {wrong[0]} of a result is {made_by[wrong[0]]!r:.40}")
    try:
        return Result(
            made_by=Provenance(**made_by),
            episodes=cells[number],
            predicted=predicted.astype(np.int64),
        )
    except ValueError as error:
        refuse(path, str(error))


_TEXT_OR_NONE = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "uses_class_names": (bool,),
    "digest": (str,),
    "precision": (str,),
    "frames": (int, type(None)),
    "encoder_run": _TEXT_OR_NONE,
    "encoder_sha256": _TEXT_OR_NONE,
    "run": _TEXT_OR_NONE,
    "checkpoint_sha256": _TEXT_OR_NONE,
    "train_seed": (int, type(None)),
    "training": (dict, type(None)),
}


def _provenance_values(made_by: Provenance) -> dict[str, Any]:
    return {name: getattr(made_by, name) for name in _KINDS}


def _arrays_of(arrays: Arrays, cell: int) -> Arrays:
    named = {name: arrays.get(f"cells/{cell}/{name}") for name in ARRAYS}
    return {name: array for name, array in named.items() if array is not None}


def _are_objects(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, dict) for v in values)
