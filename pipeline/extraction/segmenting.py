"""Masks of the clips that get any, by phase.

Masks depend on the label, so none are made of classes that are to be recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.decoding import DecodedClip
from pipeline.errors import ResourceError, VideoError
from pipeline.extraction.gates import Gate
from pipeline.extraction.rows import segment_clips
from pipeline.extraction.viewed_clips import ViewedClip
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables, prompts_for
from pipeline.segmenters import ClipToSegment, Masks, Segmenter


@dataclass(frozen=True, slots=True)
class SegmentedClip:
    """A viewed clip with its masks."""

    item: ViewedClip
    masks: tuple[Masks | None, ...] | VideoError
    """One per phase of the clip: None where none were made; or why they are unusable."""


class Segmenting:
    """The segmenter of a worker, for several threads.

    Args:
        segmenter: None for no masks.
        gate: before the segmenter.
        manifest: holds the curated prompts.
        prompts: the user's prompts and the dataset's placeholders.
        prompt_mode: see `pipeline.prompts.prompts_for`.
    """

    def __init__(
        self,
        segmenter: Segmenter | None,
        gate: Gate,
        *,
        manifest: Manifest,
        prompts: PromptTables | None,
        prompt_mode: str,
    ) -> None:
        self._segmenter = segmenter
        self._gate = gate
        self._manifest = manifest
        self._prompts = prompts
        self._prompt_mode = prompt_mode

    def wants(self, video: Video) -> bool:
        """Whether masks of a video are made."""
        return self._segmenter is not None and video.split == "train"

    def masks(self, items: Sequence[ViewedClip]) -> list[SegmentedClip]:
        """Masks of every clip, in one call to the segmenter."""
        asked = [
            self._to_segment(item.video, clip)
            for item in items
            if self.wants(item.video)
            for clip in item.clips
        ]
        found = iter(self._segment(asked))
        segmented = []
        for item in items:
            own = [next(found) if self.wants(item.video) else None for _ in item.clips]
            fault = next((one for one in own if isinstance(one, VideoError)), None)
            segmented.append(SegmentedClip(item, fault or tuple(own)))  # type: ignore[arg-type]
        return segmented

    def _segment(self, clips: Sequence[ClipToSegment]) -> list[Masks | VideoError]:
        if self._segmenter is None or not clips:
            return []
        try:
            with self._gate.turn():
                return segment_clips(self._segmenter, clips)
        except torch.cuda.OutOfMemoryError as error:
            if len(clips) == 1:
                raise ResourceError(
                    f"{self._segmenter.name} ran out of GPU memory on 1 clip; needed: room for 1; "
                    "free the GPU or pass --device cpu"
                ) from error
        # Not above: while the error is there, so is the memory that its frames hold.
        torch.cuda.empty_cache()
        middle = len(clips) // 2
        return [*self._segment(clips[:middle]), *self._segment(clips[middle:])]

    def _to_segment(self, video: Video, clip: DecodedClip) -> ClipToSegment:
        return ClipToSegment(
            video=video,
            frames=clip.frames,
            frame_indices=clip.frame_indices,
            num_frames_decoded=clip.num_frames_decoded,
            prompts=prompts_for(
                self._manifest, video, user_table=self._prompts, mode=self._prompt_mode
            ),
        )
