"""Which stored frames are taken: those of a clip, or a sample over many videos.

Shape letters: B clips, F stored frames, T frames of a clip.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.draws import Stream, Words

Kind = TypeVar("Kind", bound=np.generic)


def frames_at(stored: NDArray[Kind], positions: NDArray[np.integer[Any]]) -> NDArray[Kind]:
    """Take some of the stored frames of each clip.

    Args:
        stored: (B, F, ...).
        positions: (T,) the same of every clip, or (B, T).

    Returns:
        (B, T, ...); ``stored`` itself where these are all frames in order.
    """
    if positions.ndim == 2:
        return stored[np.arange(len(stored))[:, None], positions]
    if np.array_equal(positions, np.arange(stored.shape[1])):
        return stored
    return stored[:, positions]


def sampled_frames(
    rows: NDArray[np.int64], num_stored: int, *, seed: int, most: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Draw frames over as many of the videos as a bound allows.

    Args:
        rows: (V,) rows of the videos.
        num_stored: F.
        seed: 0 .. 2**64 - 1.
        most: bound on the number of frames.

    Yields:
        tuple[NDArray[np.int64], NDArray[np.int64]]: (1,) row of a video, (n,) its frames.
    """
    words = Words(Stream.TOKEN_SAMPLE, seed, 0)
    left = min(most, len(rows) * num_stored)
    per_video = -(-left // len(rows))
    for place in words.permutation(len(rows)):
        chosen = words.choose(num_stored, min(per_video, left))
        yield rows[place : place + 1], np.array(chosen)
        left -= len(chosen)
        if not left:
            return
