"""What a method makes of many videos, once each, and how much of it is gathered at a time.

Shape letters: V videos, E episodes, N way, K shot, Q query clips.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

PREPARE_VIDEOS = 16
"""Videos per call. Fixed, and the last call is padded, so that no result ever depends on it."""

GATHER_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
"""Prepared videos gathered at a time. On a CPU larger gathers leave the cache and take fresh memory
pages each time, which measured 2 to 3 times slower; a GPU wants few launches."""

Score = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
Scores = Callable[[Tensor, Tensor], Tensor]
"""Places of support (E, N, K) and query (E, Q) among the prepared videos -> (E, Q, N) logits."""


def prepare_videos(
    rows: NDArray[np.int64], prepare: Callable[[NDArray[np.int64]], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Prepare every video once.

    Args:
        rows: (V,) rows of the videos.
        prepare: rows of PREPARE_VIDEOS videos -> named tensors with that first axis.

    Returns:
        Named tensors with first axis V, in the order of ``rows``.
    """
    whole: dict[str, Tensor] = {}
    for start in range(0, len(rows), PREPARE_VIDEOS):
        chunk = rows[start : start + PREPARE_VIDEOS]
        padded = np.pad(chunk, (0, PREPARE_VIDEOS - len(chunk)), mode="edge")
        for name, value in prepare(padded).items():
            # Filled in place: parts that are joined at the end would lie in memory twice.
            if name not in whole:
                whole[name] = value.new_empty(len(rows), *value.shape[1:])
            whole[name][start : start + len(chunk)] = value[: len(chunk)]
    return whole


def episodes_at_a_time(prepared: Mapping[str, Tensor], clips: int) -> int:
    """Episodes of ``clips`` clips each that suit the device; decides speed alone."""
    some = next(iter(prepared.values()))
    per_clip = sum(value[0].numel() * value.element_size() for value in prepared.values())
    return max(1, GATHER_BYTES.get(some.device.type, GATHER_BYTES["cpu"]) // (per_clip * clips))
