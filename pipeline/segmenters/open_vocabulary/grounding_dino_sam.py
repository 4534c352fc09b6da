"""Grounding DINO and SAM: boxes of the nouns, and SAM's mask of what each box holds.

No licence to accept: both models are under Apache-2.0. Spec: ``grounding_dino_sam[:DINO[,SAM]]``,
where DINO is a folder or owner/name on the hub, and SAM is as for sam_clip.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Shape letters: F frames of a clip, P boxes of all frames.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE, NUM_SLOTS, ClipToSegment, Masks, no_masks
from pipeline.segmenters.assembly import pool_to_cells, unite
from pipeline.segmenters.mask_packing import Fetch, SlotMasks
from pipeline.segmenters.open_vocabulary.box_selection import SlotBoxes, select_boxes
from pipeline.segmenters.open_vocabulary.grounding_dino import SHORT_SIDE, Detections, GroundingDino
from pipeline.segmenters.open_vocabulary.slot_nouns import limit_area, nouns_by_slot
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


class GroundingDinoSam:
    """Segmenter of Grounding DINO and segment_anything, one clip after the other.

    Args:
        detector: boxes from nouns.
        sam: masks from boxes.
        settings: thresholds.
        weights: what the fingerprint says of the two models.
    """

    name = "grounding_dino_sam"

    def __init__(
        self,
        detector: Detector,
        sam: BoxSam,
        settings: GroundingDinoSamSettings | None = None,
        *,
        weights: dict[str, Any] | None = None,
    ) -> None:
        self.detector, self.sam = detector, sam
        self.settings = settings or GroundingDinoSamSettings()
        self._weights = weights or {}

    def fingerprint(self) -> dict[str, Any]:
        """Return the models, their weights' sha256, and the thresholds."""
        return {
            "name": self.name,
            **self._weights,
            **asdict(self.settings),
            "precision": "bf16" if self.detector.device.type == "cuda" else "fp32",
        }

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Find each clip's actor and objects; what a frame does not show is not found in it."""
        return [self._segment(clip) for clip in clips]

    @torch.inference_mode()
    def _segment(self, clip: ClipToSegment) -> Masks:
        slots = nouns_by_slot(clip.prompts)
        if not slots:
            return no_masks(len(clip.frames))
        frames = torch.tensor(clip.frames, device=self.detector.device)
        nouns = list(dict.fromkeys(noun for names in slots.values() for noun in names))
        boxes = select_boxes(
            self.detector.find(frames, nouns),
            [[nouns.index(name) for name in slots.get(i, ())] for i in range(NUM_SLOTS)],
            min_score=self.settings.min_score,
            max_overlap=self.settings.max_overlap,
            most=self.settings.boxes,
        )
        masks = self._unite(frames, boxes)
        limits = self.settings
        masks = limit_area(masks, min_area=limits.min_area, max_area=limits.max_area)
        return Fetch(masks).masks(len(frames))[0]

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
