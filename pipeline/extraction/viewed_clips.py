"""Videos -> decoded clips and their views.

Shape letters: F stored frames, H and W the video's size, S side of a view.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.decoding import DecodedClip
from pipeline.decoding.children import DecodeChildren
from pipeline.errors import VideoError
from pipeline.manifests import Video
from pipeline.views import BASE, View, frame_phases, square_view


@dataclass(frozen=True, slots=True)
class ViewedClip:
    """A decoded video on its way to the models."""

    video: Video
    clips: tuple[DecodedClip, ...]
    """One per phase of its views, the base phase first; their frames are dropped (F = 0) where only
    the views are needed."""
    views: tuple[View, ...]
    """The base view, and the stored ones of a train video."""
    phases: tuple[int, ...]
    """Of every view, which of the clips it shows."""
    images: tuple[NDArray[np.uint8], ...]
    """(F, S, S, 3) RGB of every view; none where only the frames are needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewing:
    """How clips are looked at."""

    image_size: int | None
    """S, side of a view in pixels; None makes no views."""
    geometry: str
    stored_views: tuple[View, ...]
    keeps_frames: Callable[[Video], bool]
    """Whether a video's whole frames are kept beside its views."""

    @property
    def phases(self) -> tuple[float, ...]:
        """Phases in which frames are decoded."""
        return frame_phases(self.stored_views)

    def view(self, video: Video, clip: DecodedClip) -> ViewedClip:
        """Make the views of a clip of F frames in every phase."""
        views = (BASE, *(self.stored_views if video.split == "train" else ()))
        used = frame_phases(views)
        clips = clip.split(len(self.phases))[: len(used)]
        phases = tuple(used.index(view.phase) for view in views)
        images = tuple(
            square_view(
                clips[phase].frames,
                image_size=self.image_size,
                geometry=self.geometry,
                view=view,
            )
            for view, phase in zip(views, phases, strict=True)
            if self.image_size is not None
        )
        if not self.keeps_frames(video):
            clips = [replace(one, frames=one.frames[:0].copy()) for one in clips]
        return ViewedClip(video, tuple(clips), views, phases, images)


def viewed_clips(
    videos: Sequence[Video], root: Path, children: DecodeChildren, viewing: Viewing
) -> Iterator[tuple[Video, ViewedClip | VideoError]]:
    """Decode videos and make their views.

    Args:
        videos: in the order wanted.
        root: folder that their paths are relative to.
        children: decoding processes, entered by the caller; they decode ``viewing.phases``.
        viewing: how clips are looked at.

    Yields:
        tuple[Video, ViewedClip | VideoError]: Each video with its clip, or with the reason why
            there is none.
    """
    decoded = children.read_many([root / video.path for video in videos])
    for video, clip in zip(videos, decoded, strict=True):
        yield video, clip if isinstance(clip, VideoError) else viewing.view(video, clip)
