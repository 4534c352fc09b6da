"""Videos -> decoded clips and their views, made ahead of the encoder.

Shape letters: F stored frames, H and W the video's size, S side of the view.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.decoding import DecodedClip
from pipeline.decoding.children import DecodeChildren
from pipeline.errors import VideoError
from pipeline.manifests import Video
from pipeline.views import square_view

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class ViewedClip:
    """A decoded clip on its way to the encoder."""

    video: Video
    clip: DecodedClip
    """Its frames are dropped (F = 0) where only the views are needed."""
    views: NDArray[np.uint8]
    """(F, S, S, 3) RGB."""


def viewed_clips(
    videos: Sequence[Video],
    root: Path,
    children: DecodeChildren,
    *,
    image_size: int,
    geometry: str,
    needs_frames: Callable[[Video], bool],
    num_ahead: int,
) -> Iterator[tuple[Video, ViewedClip | VideoError]]:
    """Decode videos and make their views, in a thread beside the caller.

    Args:
        videos: in the order wanted.
        root: folder that their paths are relative to.
        children: decoding processes, entered by the caller.
        image_size: S, side of a view in pixels.
        geometry: see pipeline.views.
        needs_frames: whether a video's whole frames are kept beside its views.
        num_ahead: clips made before they are asked for; they wait in memory.

    Returns:
        Iterator of each video with its clip, or with the reason why there is none.
    """
    decoded = children.read_many([root / video.path for video in videos])

    def items() -> Iterator[tuple[Video, ViewedClip | VideoError]]:
        for video, clip in zip(videos, decoded, strict=True):
            if isinstance(clip, VideoError):
                yield video, clip
                continue
            views = square_view(clip.frames, image_size=image_size, geometry=geometry)
            if not needs_frames(video):
                clip = replace(clip, frames=clip.frames[:0].copy())
            yield video, ViewedClip(video, clip, views)

    return ahead(items(), num_ahead)


def ahead(items: Iterator[ItemT], num_ahead: int) -> Iterator[ItemT]:
    """Yield the items in their order, ``num_ahead`` of them made beforehand in one thread."""
    end = object()
    thread = ThreadPoolExecutor(1, "i2st-ahead")
    waiting: deque[Future[object]] = deque()
    try:
        for _ in range(num_ahead + 1):
            waiting.append(thread.submit(next, items, end))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield cast(ItemT, item)
    finally:
        # No waiting: the item under way may hang until its decoding process is killed.
        thread.shutdown(wait=False, cancel_futures=True)
