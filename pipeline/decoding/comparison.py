"""Whether two decoders give the same frames of the same videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.decoding.children import DecodeChildren
from pipeline.decoding.types import DecodedClip
from pipeline.errors import VideoError

MEAN_TOLERANCE = 2.5
"""Mean absolute difference, in levels of 0..255, up to which two pictures count as the same.

Our choice, measured between PyAV and decord: 0 for 8 bits and even sizes; up to 2.0 for odd sizes
and 10 bits, where libraries spread colour over pixels in their own ways. Neighbouring frames of
real videos differ by 2.6 in the median, so a reader that is off by one in a still scene passes,
with pictures that hardly differ.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One video whose frames two decoders do not agree on."""

    path: Path
    num_frames: int
    """Frames compared."""
    num_differing: int
    """Of them, frames whose pictures differ; all of them where one decoder refuses the video, or
    gives another size or other indices."""
    detail: str
    """In words, e.g. ``pyav decodes 93 frames, decord 90``."""


def compare_decoders(
    paths: Sequence[Path],
    frame_rule: str,
    num_frames: int,
    names: tuple[str, str] = ("pyav", "decord"),
    *,
    num_children: int = 1,
    timeout_seconds: float = 60.0,
    mean_tolerance: float = MEAN_TOLERANCE,
) -> list[Difference]:
    """Decode each video with two decoders, in children, and list those whose frames differ.

    A video that both refuse is no difference. The first decoder need not be the right one.

    Args:
        paths: videos to compare.
        frame_rule: a key of `pipeline.clips.FRAME_RULES`.
        num_frames: F, frames per video.
        names: the two decoders.
        num_children: decoding processes per decoder.
        timeout_seconds: longest time over one video.
        mean_tolerance: levels; see `MEAN_TOLERANCE`.

    Returns:
        One entry per differing video, in the order of ``paths``; empty where the two agree.

    Raises:
        BackendError: a decoder is unknown or not installed.
    """
    one, other = (
        # Ratio 0: how many frames decode is compared here, not judged.
        DecodeChildren(num_children, name, frame_rule, num_frames, timeout_seconds, 0.0)
        for name in names
    )
    with one, other:
        answers = zip(paths, one.read_many(paths), other.read_many(paths), strict=True)
        found = [_compare(path, names, (a, b), mean_tolerance) for path, a, b in answers]
    return [difference for difference in found if difference is not None]


def mean_differences(one: DecodedClip, other: DecodedClip) -> np.ndarray:
    """Return (F,) mean absolute differences of two clips of one shape, in levels of 0..255."""
    pairs = zip(one.frames, other.frames, strict=True)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


def _compare(
    path: Path,
    names: tuple[str, str],
    answers: tuple[DecodedClip | VideoError, DecodedClip | VideoError],
    mean_tolerance: float,
) -> Difference | None:
    one, other = answers
    if isinstance(one, VideoError) and isinstance(other, VideoError):
        return None
    if isinstance(one, VideoError) or isinstance(other, VideoError):
        clip, words = _one_refuses(names, one, other)
        return _all_of(clip, path, words)
    for what in ("num_frames_decoded", "frame_indices", "frames"):
        a, b = (_comparable(answer, what) for answer in (one, other))
        if a != b:
            label = "frames.shape" if what == "frames" else what
            return _all_of(one, path, f"{label} is {a} with {names[0]} and {b} with {names[1]}")
    differences = mean_differences(one, other)
    num_differing = int((differences > mean_tolerance).sum())
    if not num_differing:
        return None
    return Difference(
        path=path,
        num_frames=len(differences),
        num_differing=num_differing,
        detail=f"pictures differ by up to {differences.max():.1f} levels of 255 on average",
    )


def _one_refuses(
    names: tuple[str, str], one: DecodedClip | VideoError, other: DecodedClip | VideoError
) -> tuple[DecodedClip, str]:
    if isinstance(one, VideoError):
        assert isinstance(other, DecodedClip)
        return other, f"{names[0]} refuses it: {one}"
    assert isinstance(other, VideoError)
    return one, f"{names[1]} refuses it: {other}"


def _comparable(clip: DecodedClip, what: str) -> object:
    value = getattr(clip, what)
    return value.shape if what == "frames" else np.asarray(value).tolist()


def _all_of(clip: DecodedClip, path: Path, detail: str) -> Difference:
    count = len(clip.frames)
    return Difference(path=path, num_frames=count, num_differing=count, detail=detail)
