"""A segmenter's actor masks against a dataset's true person masks, beside masks of no skill.

Shape letters: n frames of one video that have a true mask.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BackendError, ConfigError, VideoError
from pipeline.extraction.plan import spread_over_classes
from pipeline.extraction.rows import failure_of, segment_clips
from pipeline.manifests import Video
from pipeline.mask_scores import MEASURES, frame_scores
from pipeline.masks import unpack_masks
from pipeline.segmenters import MASK_SIDE, ClipToSegment, Masks, Segmenter
from pipeline.segmenters.center_prior import ellipse
from pipeline.segmenters.precomputed import Precomputed
from pipeline.shards.records import Failure

ALL_CLASSES = ""
CLIPS_PER_CALL = 8
ACTOR = 0
"""The slot that is compared."""
_FORMS = "<class>/<clip>.npz, <class>/<clip>.json or <class>/<clip>/<frame>.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """Means over the frames that have a true mask."""

    masks: str
    """The segmenter, or one of the controls: whole_frame, centre_ellipse, other_video."""
    class_name: str
    """ALL_CLASSES for the mean over every frame."""
    num_frames: int
    scores: dict[str, float]
    """Measure of `pipeline.mask_scores.MEASURES` -> mean in [0, 1]."""
    iou_half_width: float | None
    """95 % half-width of the mean IoU over source videos; None for a single source."""


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


@dataclass(frozen=True, slots=True)
class _Scored:
    video: Video
    truth: NDArray[np.bool_]
    """(n, 128, 128)."""
    own: NDArray[np.float64]
    """(n, 6) scores of the segmenter."""


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
        raise ConfigError(
            f"--truth {folder} holds no mask file; needed: {_FORMS}; name their folder"
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
    scored: list[_Scored] = []
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
        rows=tuple(_rows(segmenter.name, scored)),
        failures=tuple(failures),
    )


def _chunks(items: Iterable[ClipToSegment | Failure], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _score_chunk(
    segmenter: Segmenter, truth: Precomputed, chunk: Sequence[ClipToSegment | Failure]
) -> Iterator[_Scored | Failure]:
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


def _score(video: Video, own: Masks, true: Masks) -> _Scored:
    known = true.found[:, ACTOR]
    truth = unpack_masks(true.bits[known, ACTOR])
    masks = unpack_masks(own.bits[known, ACTOR])
    return _Scored(video, truth, frame_scores(masks, own.found[known, ACTOR], truth))


def _rows(name: str, scored: Sequence[_Scored]) -> Iterator[ScoreRow]:
    everywhere = np.ones((MASK_SIDE, MASK_SIDE), np.bool_)
    scores = {
        name: [one.own for one in scored],
        "whole_frame": [_control(one, everywhere[None]) for one in scored],
        "centre_ellipse": [_control(one, ellipse()[None]) for one in scored],
    }
    if len(scored) > 1:
        others = [_before(scored, number) for number in range(len(scored))]
        pairs = zip(scored, others, strict=True)
        scores["other_video"] = [_control(one, other.truth) for one, other in pairs]
    classes = [one.video.class_name for one in scored]
    for class_name in (ALL_CLASSES, *sorted(set(classes))):
        chosen = [i for i, own in enumerate(classes) if class_name in (ALL_CLASSES, own)]
        sources = [_source(scored[i].video) for i in chosen]
        for masks, tables in scores.items():
            yield _mean_row(masks, class_name, [tables[i] for i in chosen], sources)


def _mean_row(
    masks: str, class_name: str, tables: Sequence[NDArray[np.float64]], sources: Sequence[str]
) -> ScoreRow:
    table = np.concatenate(tables)
    means = dict(zip(MEASURES, table.mean(axis=0).tolist(), strict=True))
    iou = MEASURES.index("iou")
    residuals = [float((one[:, iou] - means["iou"]).sum()) for one in tables]
    return ScoreRow(
        masks=masks,
        class_name=class_name,
        num_frames=len(table),
        scores=means,
        iou_half_width=_half_width(residuals, sources, len(table)),
    )


def _half_width(residuals: Sequence[float], sources: Sequence[str], count: int) -> float | None:
    """Half-width of a mean whose terms are independent between sources, not inside them."""
    of_source: dict[str, float] = {}
    for source, residual in zip(sources, residuals, strict=True):
        of_source[source] = of_source.get(source, 0.0) + residual
    if len(of_source) < 2:
        return None
    return 1.96 * math.sqrt(sum(value**2 for value in of_source.values())) / count


def _control(one: _Scored, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores of masks that are used in turn for the frames of a video."""
    frames = masks[np.arange(len(one.truth)) % len(masks)]
    return frame_scores(frames, np.ones(len(frames), np.bool_), one.truth)


def _before(scored: Sequence[_Scored], number: int) -> _Scored:
    """Return the nearest video before that is of another source, round the end; else the next."""
    source = _source(scored[number].video)
    before = [scored[number - back] for back in range(1, len(scored))]
    return next((one for one in before if _source(one.video) != source), before[0])


def _source(video: Video) -> str:
    return video.group or video.video_id
