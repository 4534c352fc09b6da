"""A segmenter whose model finds nouns by itself: one clip after the other, slot by slot.

Shape letters: F frames of a clip, H and W the video's size.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.segmenters import ClipToSegment, Masks, no_masks
from pipeline.segmenters.mask_packing import Fetch, SlotMasks
from pipeline.segmenters.open_vocabulary.slot_nouns import limit_area, nouns_by_slot


class NounSegmenter(ABC):
    """What such segmenters share; each says how its models find nouns.

    Args:
        device: of the models.
        settings: a dataclass of every number that decides the masks, with ``min_area`` and
            ``max_area`` among them.
        weights: what the fingerprint says of the models.
    """

    name: ClassVar[str]

    def __init__(self, device: torch.device, settings: Any, weights: dict[str, Any] | None) -> None:
        self.device = device
        self.settings = settings
        self._weights = weights or {}

    def fingerprint(self) -> dict[str, Any]:
        """Return the models, their weights' sha256, and the thresholds."""
        return {
            "name": self.name,
            **self._weights,
            **asdict(self.settings),
            "precision": "bf16" if self.device.type == "cuda" else "fp32",
        }

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Find each clip's actor and objects; what a frame does not show is not found in it."""
        return [self._segment(clip) for clip in clips]

    @torch.inference_mode()
    def _segment(self, clip: ClipToSegment) -> Masks:
        slots = nouns_by_slot(clip.prompts)
        if not slots:
            return no_masks(len(clip.frames))
        nouns = list(dict.fromkeys(noun for names in slots.values() for noun in names))
        places = {slot: [nouns.index(name) for name in names] for slot, names in slots.items()}
        limits = self.settings
        masks = limit_area(
            self.find(torch.tensor(clip.frames), nouns, places),
            min_area=limits.min_area,
            max_area=limits.max_area,
        )
        return Fetch(masks).masks(len(clip.frames))[0]

    @abstractmethod
    def find(
        self, frames: Tensor, nouns: Sequence[str], places: Mapping[int, Sequence[int]]
    ) -> SlotMasks:
        """Find the nouns of every slot.

        Args:
            frames: (F, H, W, 3) uint8 RGB, on the CPU.
            nouns: all that are looked for, each once.
            places: slot -> which of the nouns name it; slots without nouns are left out.

        Returns:
            Masks of the F frames.
        """
