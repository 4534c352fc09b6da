"""Scores of a segmenter and of masks of no skill, averaged over frames.

Shape letters: n frames of one video that have a true mask.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Video
from pipeline.scoring.mask_scores import MEASURES, frame_scores
from pipeline.segmenters import MASK_SIDE
from pipeline.segmenters.center_prior import ellipse

ALL_CLASSES = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """Means over the frames that have a true mask."""

    masks: str
    """The segmenter, or one of the controls: whole_frame, centre_ellipse, other_video."""
    class_name: str
    """ALL_CLASSES for the mean over every frame."""
    num_frames: int
    scores: dict[str, float]
    """Measure of `pipeline.scoring.mask_scores.MEASURES` -> mean in [0, 1]."""
    iou_half_width: float | None
    """95 % half-width of the mean IoU over source videos; None for a single source."""


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """A segmenter's scores on one video, and the truth that the controls are scored against."""

    video: Video
    truth: NDArray[np.bool_]
    """(n, 128, 128)."""
    own: NDArray[np.float64]
    """(n, 6) scores of the segmenter."""


def score_rows(name: str, scored: Sequence[ScoredVideo]) -> Iterator[ScoreRow]:
    """Means of a segmenter's scores and of the controls', over all classes and class by class.

    Args:
        name: of the segmenter.
        scored: its scores, at least one frame in each.

    Yields:
        ScoreRow: Of the segmenter and each control in turn; ALL_CLASSES comes first.
    """
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


def _control(one: ScoredVideo, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores of masks that are used in turn for the frames of a video."""
    frames = masks[np.arange(len(one.truth)) % len(masks)]
    return frame_scores(frames, np.ones(len(frames), np.bool_), one.truth)


def _before(scored: Sequence[ScoredVideo], number: int) -> ScoredVideo:
    """Return the nearest video before that is of another source, round the end; else the next."""
    source = _source(scored[number].video)
    before = [scored[number - back] for back in range(1, len(scored))]
    return next((one for one in before if _source(one.video) != source), before[0])


def _source(video: Video) -> str:
    return video.group or video.video_id
