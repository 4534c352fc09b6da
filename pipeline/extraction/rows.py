"""What a clip's features and masks come to: a row of a shard, or a recorded failure."""

from collections.abc import Sequence

from pipeline.encoders import FrameFeatures, finite_frames
from pipeline.errors import VideoError
from pipeline.extraction.viewed_clips import ViewedClip
from pipeline.manifests import Video
from pipeline.segmenters import ClipToSegment, Masks, Segmenter
from pipeline.shards.records import Failure
from pipeline.shards.writer import VideoFeatures


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


def video_row(
    item: ViewedClip, features: FrameFeatures, masks: Masks | VideoError | None
) -> VideoFeatures:
    """Shard row of one video.

    Args:
        item: the decoded clip.
        features: of its F frames.
        masks: None where none were made; a VideoError says why they are unusable.

    Returns:
        The row.

    Raises:
        VideoError: its masks are unusable, or its features are not finite or all the same.
    """
    if isinstance(masks, VideoError):
        raise masks
    tokens, embedding = features.tokens.numpy(), features.embedding.numpy()
    if not bool(finite_frames(features).all()):
        raise VideoError(
            "nonfinite",
            f"{item.video.path}: features hold NaN or a value beyond float16; needed: finite "
            "numbers; check the encoder's weights",
        )
    if tokens.min() == tokens.max():
        raise VideoError(
            "nonfinite",
            f"{item.video.path}: every feature is {tokens.flat[0]}; needed: features that differ; "
            "check the encoder's weights",
        )
    return VideoFeatures(
        video=item.video,
        tokens=tokens,
        frame_embedding=embedding,
        masks=masks,
        frame_indices=item.clip.frame_indices,
        num_frames_decoded=item.clip.num_frames_decoded,
        num_frames_expected=item.clip.num_frames_expected,
        num_damaged_packets=item.clip.num_damaged_packets,
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
