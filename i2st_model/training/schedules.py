"""What changes from step to step: the learning rate, and the frames that a clip takes."""

from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.draws import Words


def num_steps(episodes: int, episodes_per_step: int) -> int:
    """Steps that hold ``episodes``; the last one may hold fewer."""
    return -(-episodes // episodes_per_step)


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Factor on the base rates: linear warm-up, then a half cosine towards 0.

    Args:
        step: 0 for the first step.
        total: number of steps.
        warmup: share of the steps that warm up; at least one step does, so no rate is 0.

    Returns:
        A number in (0, 1].
    """
    warm = max(1, round(warmup * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + cos(pi * (step - warm) / max(1, total - warm)))


def random_positions(words: Words, count: int, stored: int, frames: int) -> NDArray[np.int64]:
    """Choose T of F stored frames for each clip: one at random from each of T equal segments.

    Random segments in training and their centres in test are our choice.

    Args:
        words: where the draw comes from.
        count: B clips.
        stored: F.
        frames: T, at most F.

    Returns:
        (B, T) int64, ascending along T; 0 .. F - 1 for every clip where T = F.
    """
    edges = [segment * stored // frames for segment in range(frames + 1)]
    chosen = [
        [low + words.below(high - low) for low, high in zip(edges, edges[1:], strict=False)]
        for _ in range(count)
    ]
    return np.array(chosen, dtype=np.int64).reshape(count, frames)
