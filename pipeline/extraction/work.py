"""One chunk of videos -> one shard: decode, view, encode, segment, check, write.

Shape letters: n videos, F stored frames, S side of the view, L grid cells, C features of a token.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoding.children import DecodeChildren
from pipeline.encoders import FrameFeatures, encode_all
from pipeline.errors import ResourceError, VideoError
from pipeline.extraction.backends import Backends, load_backends
from pipeline.extraction.plan import ChunkTask, ExtractConfig
from pipeline.extraction.rows import failure_of, segment_clips, video_row
from pipeline.extraction.viewed_clips import ViewedClip, viewed_clips
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables, prompts_for
from pipeline.segmenters import ClipToSegment, Masks
from pipeline.shards.records import Failure
from pipeline.shards.writer import ShardWriter, VideoFeatures

logger = logging.getLogger(__name__)

OnVideo = Callable[[bool], None]
"""Called after every video, with whether it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkSettings:
    """All that a worker needs to know; plain data, so that it can travel to another process."""

    config: ExtractConfig
    manifest: Manifest
    fingerprint: Mapping[str, Any]
    prompts: PromptTables | None = None
    """The user's prompts and the dataset's placeholders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkResult:
    """What became of a chunk."""

    number: int
    num_written: int
    num_without_masks: int
    """Train videos in which the segmenter found nothing, or had no mask file."""
    failures: tuple[Failure, ...]


@contextmanager
def open_chunk_worker(
    settings: ChunkSettings,
    worker_number: int,
    *,
    backends: Backends | None = None,
    on_video: OnVideo | None = None,
) -> Iterator["ChunkWorker"]:
    """Start the decoding children and, unless they are given, build the models."""
    config = settings.config
    with (
        _one_torch_thread(),
        DecodeChildren(
            config.decode_children,
            decoder=config.decoder,
            frame_rule=config.frame_rule,
            num_frames=config.frames,
            timeout_seconds=config.decode_timeout_seconds,
            min_decoded_ratio=config.min_decoded_ratio,
            max_pixels=config.max_pixels,
        ) as children,
    ):
        yield ChunkWorker(
            settings, backends or load_backends(config, worker_number), children, on_video
        )


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    # Sums are divided over the threads, so their number shows in the last bit of the features.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ChunkWorker:
    """Turns chunks into shards; a video that cannot be used becomes a `Failure`, not an end."""

    def __init__(
        self,
        settings: ChunkSettings,
        backends: Backends,
        children: DecodeChildren,
        on_video: OnVideo | None = None,
    ) -> None:
        self._settings = settings
        self._config = settings.config
        self._backends = backends
        self._children = children
        self._writer = ShardWriter(
            self._config.out,
            settings.fingerprint,
            class_names=settings.manifest.class_names,
        )
        self._on_video = on_video or (lambda failed: None)
        self._batch_frames = settings.config.batch_frames

    def __call__(self, task: ChunkTask) -> ChunkResult:
        """Extract the chunk's videos and commit them as one shard."""
        rows: list[VideoFeatures] = []
        failures: list[Failure] = []
        for outcome in self._outcomes(task):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                rows.append(outcome)
            self._on_video(isinstance(outcome, Failure))
        self._writer.write(task.number, rows, failures)
        return ChunkResult(
            number=task.number,
            num_written=len(rows),
            num_without_masks=sum(
                row.masks is not None and not row.masks.found.any() for row in rows
            ),
            failures=tuple(failures),
        )

    def _outcomes(self, task: ChunkTask) -> Iterator[VideoFeatures | Failure]:
        """Outcome of every video of the chunk; frames of several videos share encoder calls."""
        group: list[ViewedClip] = []
        num_grouped = max(1, self._config.batch_frames // self._config.frames)
        viewed = viewed_clips(
            task.videos,
            self._config.videos,
            self._children,
            image_size=self._backends.encoder.image_size,
            geometry=self._config.geometry,
            needs_frames=self._is_segmented,
            num_ahead=num_grouped,
        )
        for video, clip in viewed:
            if isinstance(clip, VideoError):
                yield failure_of(video, clip)
                continue
            group.append(clip)
            if len(group) == num_grouped:
                yield from self._finish(group)
                group = []
        yield from self._finish(group)

    def _is_segmented(self, video: Video) -> bool:
        # Masks depend on the label, so none are made of classes that are to be recognised.
        return self._backends.segmenter is not None and video.split == "train"

    def _finish(self, group: list[ViewedClip]) -> Iterator[VideoFeatures | Failure]:
        """Encode and segment a group of clips."""
        if not group:
            return
        features = self._encode(np.concatenate([item.views for item in group]))
        masks = self._segment(group)
        num_frames = self._config.frames
        for position, item in enumerate(group):
            frames = slice(position * num_frames, (position + 1) * num_frames)
            own = FrameFeatures(features.tokens[frames], features.embedding[frames])
            try:
                yield video_row(item, own, masks.get(item.video.video_id))
            except VideoError as error:
                yield failure_of(item.video, error)

    def _encode(self, views: NDArray[np.uint8]) -> FrameFeatures:
        """Features of (n * F, S, S, 3) views; a batch that exceeds the GPU's memory is halved."""
        while True:
            try:
                return encode_all(self._backends.encoder, views, self._batch_frames)
            except torch.cuda.OutOfMemoryError as error:
                if self._batch_frames == 1:
                    raise ResourceError(
                        f"{self._backends.encoder.name} ran out of GPU memory on 1 frame; needed: "
                        "room for 1; free the GPU or pass --device cpu"
                    ) from error
                self._batch_frames //= 2
                logger.warning("out of GPU memory; batches of %d frames now", self._batch_frames)
                torch.cuda.empty_cache()

    def _segment(self, group: list[ViewedClip]) -> dict[str, Masks | VideoError]:
        """Masks by video id, of the videos that have any."""
        segmenter = self._backends.segmenter
        clips = [self._to_segment(item) for item in group if self._is_segmented(item.video)]
        if segmenter is None or not clips:
            return {}
        masks = segment_clips(segmenter, clips)
        return {clip.video.video_id: own for clip, own in zip(clips, masks, strict=True)}

    def _to_segment(self, item: ViewedClip) -> ClipToSegment:
        return ClipToSegment(
            video=item.video,
            frames=item.clip.frames,
            frame_indices=item.clip.frame_indices,
            num_frames_decoded=item.clip.num_frames_decoded,
            prompts=prompts_for(
                self._settings.manifest,
                item.video,
                user_table=self._settings.prompts,
                mode=self._config.prompt_mode,
            ),
        )
