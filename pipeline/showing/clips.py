"""Clips as a contact sheet shows them; one video's, segmented now.

Shape letters: F frames, H and W the video's size.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import VideoError
from pipeline.manifests import Manifest, Video
from pipeline.manifests.types import ClassPrompts
from pipeline.prompted_clips import prompted_clips
from pipeline.prompts import PromptSet, PromptTables
from pipeline.segmenters import ClipToSegment, Masks, Segmenter
from pipeline.shards.records import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Noun:
    """What was looked for in one slot."""

    slot: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownClip:
    """One clip on a sheet."""

    class_name: str
    video_id: str
    split: str = ""
    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB."""
    frame_indices: NDArray[np.int32]
    """(F,)."""
    nouns: tuple[Noun, ...] = ()
    """Slots to report on, found or not."""
    prompt_source: str = ""
    """Which source named the nouns, see `pipeline.prompts`."""
    masks: Masks | None = None
    """None where the clip has none, as clips outside train."""

    @property
    def of_other_split(self) -> bool:
        """Whether the clip is known to lie outside train, where no masks are made."""
        return self.split not in ("", "train")

    def found_in(self, slot: int) -> int:
        """Count the frames in which a slot's mask was found."""
        return 0 if self.masks is None else int(self.masks.found[:, slot].sum())

    def to_json(self) -> dict[str, Any]:
        """Return what the sheet says of this clip, as plain values for JSON."""
        return {
            "class": self.class_name,
            "video_id": self.video_id,
            "split": self.split,
            "frames": self.frame_indices.tolist(),
            "prompts": self.prompt_source,
            "masks": self.masks is not None,
            "nouns": [
                {
                    "slot": noun.slot,
                    "noun": noun.text,
                    "found": self.found_in(noun.slot),
                    "score": self.mean_score(noun.slot),
                }
                for noun in self.nouns
            ],
        }

    def mean_score(self, slot: int) -> float | None:
        """Return the mean score over the frames in which a slot was found; None for no frame."""
        if self.masks is None or not self.found_in(slot):
            return None
        found = self.masks.found[:, slot]
        return float(self.masks.score[found, slot].astype(np.float64).mean())


def clip_of_video(
    path: Path,
    manifest: Manifest,
    class_name: str,
    segmenter: Segmenter | None,
    *,
    prompts: ClassPrompts,
    prompt_mode: str = "nouns",
    num_frames: int = 8,
) -> ShownClip:
    """Decode and segment one video.

    Args:
        path: a video file, or a folder of frames.
        manifest: holds curated prompts.
        class_name: what the video shows; ``precomputed`` looks for ``<class>/<clip>``.
        segmenter: None to show the frames alone.
        prompts: what to look for in place of the class's own nouns.
        prompt_mode: as in `pipeline.prompts.prompts_for`.
        num_frames: F.

    Returns:
        The clip.

    Raises:
        VideoError: it does not decode, or its masks are unusable.
    """
    clip_name = path.name if path.is_dir() else path.stem
    video_id = f"{class_name}/{clip_name}"
    video = Video(video_id=video_id, path=path.name, class_name=class_name, split="train")
    (clip,) = prompted_clips(
        manifest,
        [video],
        path.parent,
        num_frames=num_frames,
        prompts=PromptTables(user={video_id: prompts}),
        prompt_mode=prompt_mode,
    )
    if isinstance(clip, Failure):
        raise VideoError(clip.reason, clip.message)
    masks = None if segmenter is None else segmenter.segment([clip])[0]
    return replace(shown_clip(clip, masks), split="")


def shown_clip(clip: ClipToSegment, masks: Masks | None) -> ShownClip:
    """Put a clip, its masks and its prompts together.

    Args:
        clip: frames and prompts.
        masks: None where it has none.

    Returns:
        The clip as a contact sheet takes it.
    """
    return ShownClip(
        class_name=clip.video.class_name,
        video_id=clip.video.video_id,
        split=clip.video.split,
        frames=clip.frames,
        frame_indices=clip.frame_indices,
        nouns=_nouns(clip.prompts),
        prompt_source=clip.prompts.source,
        masks=masks,
    )


def _nouns(prompts: PromptSet) -> tuple[Noun, ...]:
    """Slots of the actor, where somebody acts, and of the objects."""
    actor = [Noun(slot=0, text=prompts.actor[0])] if prompts.actor else []
    objects = [Noun(slot=i, text=name) for i, name in enumerate(prompts.objects, start=1)]
    return (*actor, *objects)
