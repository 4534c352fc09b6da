"""Which frames form a clip: pure index maths, the same for every decoder and every dataset.

Letters: F frames stored per video, T frames of a clip in an episode (T <= F).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

FrameChooser = Callable[[int], Sequence[int] | NDArray[np.int32]]
"""Number of frames that really decode, at least 1 -> indices in presentation order."""

FrameRule = Callable[[int, int, float], NDArray[np.int32]]
"""(num_frames, count, phase) -> (count,) indices in 0..num_frames-1 that never decrease."""

BASE_PHASE = 0.0


def segment_centres(num_frames: int, count: int, phase: float = BASE_PHASE) -> NDArray[np.int32]:
    """Return the frame at the centre of each of ``count`` equal segments of the video.

    Paper: inferred from its relatives, which all draw from equal segments; centres are the
    deterministic form of the segment sampling of TSN (Wang et al. 2016, arXiv:1608.00859), which
    the field's codebases use.
    Segment i covers [i, i + 1) * num_frames / count, so its centre lies at (2 i + 1) * num_frames /
    (2 count). In integers, since a rounded float would pick another frame on another machine.

    Args:
        num_frames: frames that decode, at least 1.
        count: indices wanted, at least 1.
        phase: segments by which every index is moved, -1/2 up to but not including 1/2.

    Returns:
        (count,) indices that never decrease; they repeat where the video is shorter than ``count``.
    """
    up, down = _ratio(num_frames, count, phase)
    places = ((2 * i + 1) * down + 2 * up for i in range(count))
    return np.array([place * num_frames // (2 * down * count) for place in places], np.int32)


def uniform_endpoints(num_frames: int, count: int, phase: float = BASE_PHASE) -> NDArray[np.int32]:
    """Return ``count`` frames at equal distances from the first to the last, both included.

    ``np.linspace(0, num_frames - 1, count)`` rounded half up; one index is the middle frame.

    Args:
        num_frames: frames that decode, at least 1.
        count: indices wanted, at least 1.
        phase: distances by which every index is moved, then kept inside the video; -1/2 up to but
            not including 1/2. One index moves by that share of the whole video.

    Returns:
        (count,) indices that never decrease; they repeat where the video is shorter than ``count``.
    """
    up, down = _ratio(num_frames, count, phase)
    last = num_frames - 1
    if count == 1:
        return np.array([(down + 2 * up) * last // (2 * down)], np.int32)
    gaps = count - 1
    places = (2 * (i * down + up) * last for i in range(count))
    rounded = [(place + gaps * down) // (2 * gaps * down) for place in places]
    return np.clip(rounded, 0, last).astype(np.int32)


FRAME_RULES: dict[str, FrameRule] = {
    "segment_centres": segment_centres,
    "uniform_endpoints": uniform_endpoints,
}


def frame_chooser(rule: str, count: int, phases: Sequence[float] = (BASE_PHASE,)) -> FrameChooser:
    """Fix rule and count, so that a decoder only has to say how many frames there are.

    Args:
        rule: a key of `FRAME_RULES`.
        count: F, frames to store per video.
        phases: P shifts of the frames, in shares of a segment.

    Returns:
        Function from the number of frames that decode to P x ``count`` indices: all of the first
        phase, then all of the second, and so on.

    Raises:
        ConfigError: no rule has that name, or ``count`` is below 1.
    """
    if rule not in FRAME_RULES:
        known = ", ".join(FRAME_RULES)
        raise ConfigError(f"unknown frame rule {rule!r}; known: {known}; pass one of these")
    if count < 1:
        raise ConfigError(f"{count} frames per video; at least 1 was needed; raise it")
    chosen_rule = FRAME_RULES[rule]
    return lambda num_frames: np.concatenate(
        [chosen_rule(num_frames, count, phase) for phase in phases]
    )


def clip_positions(num_stored: int, num_frames: int) -> NDArray[np.int32]:
    """Return which of F stored frames make a clip of T: the segment centres among them.

    Args:
        num_stored: F, frames stored per video.
        num_frames: T, frames of a clip; at most F, because a clip repeats no frame on purpose.

    Returns:
        (T,) positions along the stored axis, strictly increasing; all of them when T = F.

    Raises:
        ConfigError: T is larger than F.
    """
    if num_frames > num_stored:
        raise ConfigError(
            f"clips of {num_frames} frames were asked for, the shards store {num_stored} a video; "
            f"lower the number of frames or extract with `--frames {num_frames}`"
        )
    return segment_centres(num_stored, num_frames)


def _ratio(num_frames: int, count: int, phase: float) -> tuple[int, int]:
    """Check the arguments of a rule and return the phase as two integers, up / down.

    They are Python's own, which do not overflow: 0.1 has a denominator of 2^55.
    """
    if num_frames < 1 or count < 1:
        raise ValueError(f"num_frames={num_frames} and count={count} must both be at least 1")
    if not -0.5 <= phase < 0.5:
        raise ValueError(f"phase={phase} must lie in -1/2 up to but not including 1/2")
    return float(phase).as_integer_ratio()
