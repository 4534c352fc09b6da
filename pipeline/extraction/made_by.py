"""MadeBy: what decided a worker's rows, as fingerprints and as the files they were taken from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.noted_files import FileState


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeBy:
    """Decoder, encoder and segmenter of a worker."""

    fingerprints: Mapping[str, Any]
    """Under ``decoder``, ``encoder`` and ``segmenter``; None for what is not there."""
    device: str = "cpu"
    """cpu or cuda:N."""
    files: tuple[FileState, ...] = ()
    """Weight files of the models."""
