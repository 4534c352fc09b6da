"""A segmenter's actor masks against a dataset's true person masks, beside masks of no skill."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import BackendError, ConfigError, VideoError
from pipeline.extraction.plan import spread_over_classes
from pipeline.extraction.rows import failure_of, segment_clips
from pipeline.manifests import Video
from pipeline.masks import unpack_masks
from pipeline.scoring.mask_scores import frame_scores
from pipeline.scoring.score_rows import ScoredVideo, ScoreRow, score_rows
from pipeline.segmenters import ClipToSegment, Masks, Segmenter
from pipeline.segmenters.precomputed import Precomputed
from pipeline.shards.records import Failure

CLIPS_PER_CALL = 8
ACTOR = 0
"""The slot that is compared."""
_FORMS = "<class>/<clip>.npz, <class>/<clip>.json or <class>/<clip>/<frame>.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterScores:
    """What came of a comparison."""

    segmenter: str
    num_videos: int
    rows: tuple[ScoreRow, ...]
    """All classes together first, then class by class."""
    failures: tuple[Failure, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "segmenter": self.segmenter,
            "videos": self.num_videos,
            "rows": [
                {
                    "masks": row.masks,
                    "class": row.class_name or None,
                    "frames": row.num_frames,
                    **row.scores,
                    "iou_half_width": row.iou_half_width,
                }
                for row in self.rows
            ],
            "failures": [failure._asdict() for failure in self.failures],
        }


def open_truth(folder: Path) -> Precomputed:
    """Open a folder of true masks, in any form that `precomputed` reads.

    Args:
        folder: holds ``<class>/<clip>.npz``, ``.json`` or a folder of pictures per video.

    Returns:
        Reader of the masks.

    Raises:
        ConfigError: the folder is absent, or holds no mask file.
    """
    try:
        return Precomputed(folder)
    except BackendError as error:
        state = "holds no mask file" if folder.exists() else "is absent"
        raise ConfigError(
            f"--truth {folder} {state}; needed: {_FORMS}; name their folder"
        ) from error


def videos_with_truth(
    videos: Iterable[Video], truth: Precomputed, *, limit: int | None = None
) -> list[Video]:
    """Train videos that have a file of true masks, in turn from every class.

    Args:
        videos: of a dataset.
        truth: the true masks.
        limit: at most so many.

    Returns:
        Videos in an order of which every prefix holds as many classes as it can.

    Raises:
        ConfigError: there is none.
    """
    train = sorted((v for v in videos if v.split == "train"), key=lambda video: video.video_id)
    known = [video for video in train if truth.locate(video) is not None]
    if not known:
        raise ConfigError(
            f"--truth {truth.folder} holds masks of none of {len(train)} train videos; needed: "
            f"{_FORMS}; name their folder"
        )
    return spread_over_classes(known)[:limit]


def score_segmenter(
    segmenter: Segmenter,
    truth: Precomputed,
    clips: Iterable[ClipToSegment | Failure],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> SegmenterScores:
    """Compare the actor masks of a segmenter, and of three controls, with the truth.

    The controls look at nothing: the whole frame, the fixed ellipse of `center_prior`, and
    the truth of the video before (of another source, where there is one). What a segmenter is
    worth shows against the best of them.

    Args:
        segmenter: what is scored.
        truth: the true masks; only frames in which it has an actor count.
        clips: of train videos; failures among them are passed on.
        on_progress: called with the number of videos that are done.

    Returns:
        Means over frames, and the videos that could not be used.

    Raises:
        ConfigError: not one frame could be scored.
    """
    scored: list[ScoredVideo] = []
    failures: list[Failure] = []
    num_done = 0
    for chunk in _chunks(clips, CLIPS_PER_CALL):
        for outcome in _score_chunk(segmenter, truth, chunk):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            elif len(outcome.truth):
                scored.append(outcome)
        num_done += len(chunk)
        if on_progress:
            on_progress(num_done)
    if not scored:
        raise ConfigError(
            f"0 frames could be scored, {len(failures)} videos failed"
            + (f" ({failures[0].message})" if failures else "")
            + "; frames with a true mask were needed; check --truth and the videos"
        )
    return SegmenterScores(
        segmenter=segmenter.name,
        num_videos=len(scored),
        rows=tuple(score_rows(segmenter.name, scored)),
        failures=tuple(failures),
    )


def _chunks(items: Iterable[ClipToSegment | Failure], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _score_chunk(
    segmenter: Segmenter, truth: Precomputed, chunk: Sequence[ClipToSegment | Failure]
) -> Iterator[ScoredVideo | Failure]:
    clips = [clip for clip in chunk if not isinstance(clip, Failure)]
    yield from (clip for clip in chunk if isinstance(clip, Failure))
    pairs = zip(segment_clips(segmenter, clips), segment_clips(truth, clips), strict=True)
    for clip, (own, true) in zip(clips, pairs, strict=True):
        if isinstance(own, VideoError):
            yield failure_of(clip.video, own)
        elif isinstance(true, VideoError):
            yield failure_of(clip.video, true)
        else:
            yield _score(clip.video, own, true)


def _score(video: Video, own: Masks, true: Masks) -> ScoredVideo:
    known = true.found[:, ACTOR]
    truth = unpack_masks(true.bits[known, ACTOR])
    masks = unpack_masks(own.bits[known, ACTOR])
    return ScoredVideo(video, truth, frame_scores(masks, own.found[known, ACTOR], truth))
