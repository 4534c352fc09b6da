"""Videos -> clips as a segmenter takes them: decoded frames with the nouns to look for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.clips import BASE_PHASE
from pipeline.decoding.children import DecodeChildren
from pipeline.errors import VideoError
from pipeline.extraction.rows import failure_of
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables, prompts_for
from pipeline.segmenters import ClipToSegment
from pipeline.shards.records import Failure


def prompted_clips(
    manifest: Manifest,
    videos: Sequence[Video],
    root: Path,
    *,
    num_frames: int = 8,
    frame_rule: str = "segment_centres",
    prompts: PromptTables | None = None,
    prompt_mode: str = "nouns",
    min_decoded_ratio: float = 0.95,
    phase: float = BASE_PHASE,
) -> Iterator[ClipToSegment | Failure]:
    """Decode videos in a process beside this one, as extraction does, and look up their prompts.

    Args:
        manifest: holds the curated prompts.
        videos: in the order wanted.
        root: folder that their paths are relative to.
        num_frames: F, frames per video.
        frame_rule: a key of `pipeline.clips.FRAME_RULES`.
        prompts: the user's prompts and the dataset's placeholders.
        prompt_mode: as in `pipeline.prompts.prompts_for`.
        min_decoded_ratio: a video is refused where fewer of its expected frames decode.
        phase: shift of the frames in time, see pipeline.clips.

    Yields:
        ClipToSegment | Failure: Of each video in turn; a Failure where it does not decode.

    Raises:
        ConfigError: frame rule or prompt mode is unknown.
    """
    with DecodeChildren(
        1,
        frame_rule=frame_rule,
        num_frames=num_frames,
        min_decoded_ratio=min_decoded_ratio,
        phases=(phase,),
    ) as children:
        decoded = children.read_many([root / video.path for video in videos])
        for video, clip in zip(videos, decoded, strict=True):
            if isinstance(clip, VideoError):
                yield failure_of(video, clip)
                continue
            yield ClipToSegment(
                video=video,
                frames=clip.frames,
                frame_indices=clip.frame_indices,
                num_frames_decoded=clip.num_frames_decoded,
                prompts=prompts_for(manifest, video, user_table=prompts, mode=prompt_mode),
            )
