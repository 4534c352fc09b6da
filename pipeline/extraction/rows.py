"""What a clip's features and masks come to: a row of a shard, or a recorded failure.

Shape letters: F stored frames, L grid cells, C features of a token, E of the embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import VideoError
from pipeline.extraction.viewed_clips import ViewedClip
from pipeline.manifests import Video
from pipeline.segmenters import ClipToSegment, Masks, Segmenter
from pipeline.shards.jpegs import encode_frames
from pipeline.shards.records import Failure
from pipeline.shards.rows import VideoFeatures, VideoFrames, ViewFeatures


def segment_clips(segmenter: Segmenter, clips: Sequence[ClipToSegment]) -> list[Masks | VideoError]:
    """Masks of every clip, or why it has none.

    One call takes all clips. Where it refuses, each clip is asked for by itself, so that one clip's
    fault stays its own.
    """
    try:
        return [*segmenter.segment(clips)]
    except VideoError:
        return [_segment_one(segmenter, clip) for clip in clips]


def _segment_one(segmenter: Segmenter, clip: ClipToSegment) -> Masks | VideoError:
    try:
        return segmenter.segment([clip])[0]
    except VideoError as error:
        return error


def features_row(item: ViewedClip, features: Sequence[ViewFeatures]) -> VideoFeatures:
    """Row of a feature store.

    Args:
        item: the decoded clip.
        features: of its views, the base view first.

    Returns:
        The row.

    Raises:
        VideoError: features are not finite or all the same.
    """
    for view in features:
        _check_finite(item.video, view)
    base = features[0]
    return VideoFeatures(
        tokens=base.tokens,
        frame_embedding=base.frame_embedding,
        views=tuple(features[1:]),
        **_common(item, base.masks),
    )


def frames_row(item: ViewedClip, masks: Masks | None, frame_side: int) -> VideoFrames:
    """Row of a frame store.

    Args:
        item: the decoded clip, with its frames.
        masks: of them; None where none were made.
        frame_side: longest that the short side of a stored frame is, in pixels.

    Returns:
        The row.

    Raises:
        VideoError: a frame cannot be stored.
    """
    jpegs, size = encode_frames(item.clips[0].frames, frame_side)
    return VideoFrames(jpegs=jpegs, frame_size=size, **_common(item, masks))


def _common(item: ViewedClip, masks: Masks | None) -> dict[str, Any]:
    clip = item.clips[0]
    return {
        "video": item.video,
        "masks": masks,
        "frame_indices": clip.frame_indices,
        "num_frames_decoded": clip.num_frames_decoded,
        "num_frames_expected": clip.num_frames_expected,
        "num_damaged_packets": clip.num_damaged_packets,
    }


def _check_finite(video: Video, view: ViewFeatures) -> None:
    tokens = view.tokens
    if not (np.isfinite(tokens).all() and np.isfinite(view.frame_embedding).all()):
        raise VideoError(
            "nonfinite",
            f"{video.path}: features hold NaN or a value beyond float16; needed: finite "
            "numbers; check the encoder's weights",
        )
    if tokens.min() == tokens.max():
        raise VideoError(
            "nonfinite",
            f"{video.path}: every feature is {tokens.flat[0]}; needed: features that differ; "
            "check the encoder's weights",
        )


def failure_of(video: Video, error: VideoError) -> Failure:
    """Record of a video that cannot be used."""
    return Failure(
        video_id=video.video_id,
        split=video.split,
        class_name=video.class_name,
        reason=error.reason,
        message=str(error),
    )
