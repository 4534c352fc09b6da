"""Grounding DINO and SAM: boxes of the nouns, and SAM's mask of what each box holds.

No licence to accept: both models are under Apache-2.0. Spec: ``grounding_dino_sam[:DINO[,SAM]]``,
where DINO is a folder or owner/name on the hub, and SAM is as for sam_clip.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Shape letters: F frames of a clip, P boxes of all frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE, NUM_SLOTS
from pipeline.segmenters.assembly import pool_to_cells, unite
from pipeline.segmenters.mask_packing import SlotMasks
from pipeline.segmenters.open_vocabulary.box_selection import SlotBoxes, select_boxes
from pipeline.segmenters.open_vocabulary.grounding_dino import SHORT_SIDE, Detections, GroundingDino
from pipeline.segmenters.open_vocabulary.noun_segmenter import NounSegmenter
from pipeline.segmenters.open_vocabulary.transformers_models import load_model
from pipeline.segmenters.options import settings_from
from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames

DINO_DEFAULT = "IDEA-Research/grounding-dino-tiny"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingDinoSamSettings:
    """Every number that decides the masks."""

    detector_side: int = SHORT_SIDE
    """Pixels of the frame's shorter side at the detector's input."""
    sam_side: int = 1024
    """Pixels of the frame's longer side at SAM's input: 1024, 768 or 512."""
    min_score: float = 0.35
    """Least score of a box; that of Grounding DINO's own demo."""
    max_overlap: float = 0.8
    """Boxes of a noun that overlap more are one. Our choice: two people may embrace."""
    boxes: int = 4
    """Kept per noun and frame. Our choice."""
    min_area: float = 5e-4
    """Least share of the frame that a mask may cover; as for sam_clip."""
    max_area: float = 0.9
    """Largest."""


class Detector(Protocol):
    """What is asked of Grounding DINO; GroundingDino answers."""

    device: torch.device

    def find(self, frames: Tensor, nouns: Sequence[str]) -> Detections:
        """Look for nouns in (F, H, W, 3) uint8 frames."""
        ...


class BoxSam(Protocol):
    """What is asked of SAM; SamDecoder answers."""

    def embed(self, frames: Tensor) -> EmbeddedFrames:
        """Embed (F, H, W, 3) uint8 frames."""
        ...

    def decode_boxes(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor
    ) -> Candidates:
        """One mask of each of P boxes."""
        ...


class GroundingDinoSam(NounSegmenter):
    """Segmenter of Grounding DINO and segment_anything, one clip after the other.

    Args:
        detector: boxes from nouns.
        sam: masks from boxes.
        settings: thresholds.
        weights: what the fingerprint says of the two models.
    """

    name = "grounding_dino_sam"
    settings: GroundingDinoSamSettings

    def __init__(
        self,
        detector: Detector,
        sam: BoxSam,
        settings: GroundingDinoSamSettings | None = None,
        *,
        weights: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detector.device, settings or GroundingDinoSamSettings(), weights)
        self.detector, self.sam = detector, sam

    def find(
        self, frames: Tensor, nouns: Sequence[str], places: Mapping[int, Sequence[int]]
    ) -> SlotMasks:
        """Find boxes of the nouns, and what SAM sees in those of each slot."""
        frames = frames.to(self.device)
        boxes = select_boxes(
            self.detector.find(frames, nouns),
            [list(places.get(slot, ())) for slot in range(NUM_SLOTS)],
            min_score=self.settings.min_score,
            max_overlap=self.settings.max_overlap,
            most=self.settings.boxes,
        )
        return self._unite(frames, boxes)

    def _unite(self, frames: Tensor, boxes: SlotBoxes) -> SlotMasks:
        """Union of what SAM sees in the boxes of each frame and slot."""
        kept = boxes.scores > 0
        shape = (*kept.shape, MASK_SIDE, MASK_SIDE)
        instances = torch.zeros(shape, dtype=torch.bool, device=kept.device)
        nothing = SlotMasks(torch.zeros_like(instances[:, :, 0]), boxes.scores[..., 0] * 0)
        if not kept.any():
            return nothing
        needed, frame_index = kept.nonzero()[:, 0].unique(return_inverse=True)
        embedded = self.sam.embed(frames[needed])
        masks = self.sam.decode_boxes(embedded, frame_index, boxes.boxes[kept]).logits[:, 0] > 0
        instances[kept] = pool_to_cells(masks, embedded.extent)
        return unite(instances, boxes.scores, nothing)


def build(
    model: str,
    *,
    device: str,
    masks: Path | None,
    sam: str | None = None,
    **options: Any,
) -> GroundingDinoSam:
    """Registry entry.

    Args:
        model: ``DINO`` or ``DINO,SAM``; empty for DINO_DEFAULT and SAM's default.
        device: torch device of both models.
        masks: not used.
        sam: as for sam_clip, where ``model`` does not say it.
        **options: fields of GroundingDinoSamSettings.

    Returns:
        The segmenter, both models loaded.

    Raises:
        BackendError: transformers or weights are absent, or they are of another model.
        ConfigError: an option is unknown or no number.
    """
    from pipeline.segmenters.sam.loading import load_sam

    dino, _, sam_spec = model.partition(",")
    name = GroundingDinoSam.name
    settings = settings_from(GroundingDinoSamSettings, options, segmenter=name)
    loaded = load_model(
        "GroundingDinoForObjectDetection", dino or DINO_DEFAULT, device=device, backend=name
    )
    decoder, sam_facts = load_sam(sam or sam_spec or None, device, side=settings.sam_side)
    detector = GroundingDino(loaded.model, loaded.tokenizer, short_side=settings.detector_side)
    weights = {**loaded.facts, **sam_facts}
    return GroundingDinoSam(detector, decoder, settings, weights=weights)
