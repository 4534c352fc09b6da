"""What stage one makes of one video: features with their views, or frames.

Shape letters: F stored frames, L grid cells, C token features, E embedding features.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Video
from pipeline.segmenters import Masks


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredVideo:
    """What a row says of its video, whatever else it holds."""

    video: Video
    masks: Masks | None
    """None without a segmenter, and always None outside the train split."""
    frame_indices: NDArray[np.int32]
    """(F,) which decoded frames these are."""
    num_frames_decoded: int
    num_frames_expected: int
    num_damaged_packets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewFeatures:
    """A train video seen in one of the stored views."""

    tokens: NDArray[np.float16]
    """(F, L, C) as the base view's."""
    frame_embedding: NDArray[np.float16]
    """(F, E)."""
    masks: Masks | None
    """Of the view's own frames, in its orientation; None where the base view has none."""
    frame_indices: NDArray[np.int32]
    """(F,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFeatures(StoredVideo):
    """One row of a feature store."""

    tokens: NDArray[np.float16]
    """(F, L, C) features on the grid."""
    frame_embedding: NDArray[np.float16]
    """(F, E) the encoder's own pooled embedding."""
    views: tuple[ViewFeatures, ...] = ()
    """Of a train video, in the order of the fingerprint's ``views``; () of any other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFrames(StoredVideo):
    """One row of a frame store."""

    jpegs: tuple[bytes, ...] = field(repr=False)
    """F pictures; see ``pipeline.shards.jpegs``."""
    frame_size: tuple[int, int]
    """Height and width of all of them."""
