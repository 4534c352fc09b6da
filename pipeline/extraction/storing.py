"""Clips with masks -> rows of a shard: features of their views, or their frames as JPEG.

Shape letters: n images of all views and clips, F stored frames, S side of a view.
"""

import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.encoders import FrameEncoder, FrameFeatures
from pipeline.encoders.encoding import encode_all
from pipeline.errors import ResourceError, VideoError
from pipeline.extraction.gates import Gate
from pipeline.extraction.rows import features_row, frames_row
from pipeline.extraction.segmenting import SegmentedClip
from pipeline.extraction.viewed_clips import ViewedClip
from pipeline.manifests import Video
from pipeline.segmenters import Masks
from pipeline.shards.filling import StoredRow
from pipeline.shards.rows import ViewFeatures
from pipeline.views import oriented_masks

logger = logging.getLogger(__name__)

Outcome = tuple[Video, StoredRow | VideoError]


class FeatureRows:
    """Rows of a feature store, made by several threads.

    Args:
        encoder: of the worker.
        gate: before the encoder.
        batch_frames: frames of one call to it.
    """

    def __init__(self, encoder: FrameEncoder, gate: Gate, batch_frames: int) -> None:
        self._encoder = encoder
        self._gate = gate
        self._batch_frames = batch_frames
        self._lock = threading.Lock()

    def make(self, clips: Sequence[SegmentedClip]) -> list[Outcome]:
        """Row of every clip, or why it has none; frames of all clips share encoder calls."""
        usable = [clip.item for clip in clips if not isinstance(clip.masks, VideoError)]
        features = self._features(usable)
        outcomes: list[Outcome] = []
        for clip in clips:
            video = clip.item.video
            if isinstance(clip.masks, VideoError):
                outcomes.append((video, clip.masks))
                continue
            try:
                outcomes.append((video, _row(clip.item, clip.masks, next(features))))
            except VideoError as error:
                outcomes.append((video, error))
        return outcomes

    def _features(self, items: Sequence[ViewedClip]) -> Iterator[list[FrameFeatures]]:
        """Features of every view of every clip."""
        if not items:
            return
        encoded = self._encode(np.concatenate([view for item in items for view in item.images]))
        first = 0
        for item in items:
            own = []
            for view in item.images:
                frames = slice(first, first + len(view))
                own.append(FrameFeatures(encoded.tokens[frames], encoded.embedding[frames]))
                first += len(view)
            yield own

    def _encode(self, images: np.ndarray) -> FrameFeatures:
        """Features of (n, S, S, 3) images; a batch that exceeds the GPU's memory is halved."""
        views = torch.from_numpy(images)
        if torch.cuda.is_available() and not self._encoder.frame_by_frame:
            # Copied to the GPU from locked pages, images do not hold up the launches behind them.
            views = views.pin_memory()
        while True:
            batch_frames = self._batch_frames
            try:
                with self._gate.turn():
                    return encode_all(self._encoder, views, batch_frames)
            except torch.cuda.OutOfMemoryError as error:
                self._halve(batch_frames, error)

    def _halve(self, batch_frames: int, error: Exception) -> None:
        if batch_frames == 1:
            raise ResourceError(
                f"{self._encoder.name} ran out of GPU memory on 1 frame; needed: "
                "room for 1; free the GPU or pass --device cpu"
            ) from error
        with self._lock:
            if self._batch_frames == batch_frames:
                self._batch_frames //= 2
                logger.warning("out of GPU memory; batches of %d frames now", self._batch_frames)
        torch.cuda.empty_cache()


def _row(
    item: ViewedClip, masks: Sequence[Masks | None], features: Sequence[FrameFeatures]
) -> StoredRow:
    views = []
    for view, phase, own in zip(item.views, item.phases, features, strict=True):
        found = masks[phase]
        views.append(
            ViewFeatures(
                tokens=own.tokens.numpy(),
                frame_embedding=own.embedding.numpy(),
                masks=None if found is None else oriented_masks(found, view),
                frame_indices=item.clips[phase].frame_indices,
            )
        )
    return features_row(item, views)


class FrameRows:
    """Rows of a frame store.

    Args:
        frame_side: longest that the short side of a stored frame is, in pixels.
    """

    def __init__(self, frame_side: int) -> None:
        self._frame_side = frame_side

    def make(self, clips: Sequence[SegmentedClip]) -> list[Outcome]:
        """Row of every clip, or why it has none."""
        return [(clip.item.video, self._row(clip)) for clip in clips]

    def _row(self, clip: SegmentedClip) -> StoredRow | VideoError:
        if isinstance(clip.masks, VideoError):
            return clip.masks
        try:
            return frames_row(clip.item, clip.masks[0], self._frame_side)
        except VideoError as error:
            return error
