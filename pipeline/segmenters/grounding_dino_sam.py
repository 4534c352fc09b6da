"""Grounding DINO and SAM: boxes of the nouns, and SAM's mask of what each box holds.

No licence to accept: both models are under Apache-2.0. Spec: ``grounding_dino_sam[:DINO[,SAM]]``,
where DINO is a folder or owner/name on the hub, and SAM is as for sam_clip.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Shape letters: F frames of a clip, P boxes of all frames, S side of SAM's low-resolution masks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE, ClipToSegment, Masks, no_masks
from pipeline.segmenters.assembly import pool_to_cells, select_actors
from pipeline.segmenters.box_selection import SlotBoxes, select_boxes
from pipeline.segmenters.grounding_dino import SHORT_SIDE, Detections, GroundingDino
from pipeline.segmenters.options import settings_from
from pipeline.segmenters.sam_decoding import Candidates, EmbeddedFrames
from pipeline.segmenters.slot_nouns import masks_of, nouns_by_slot
from pipeline.segmenters.transformers_models import load_model

DINO_DEFAULT = "IDEA-Research/grounding-dino-tiny"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingDinoSamSettings:
    """Every number that decides the masks."""

    detector_side: int = SHORT_SIDE
    """Pixels of the frame's shorter side at the detector's input."""
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
            [[nouns.index(name) for name in names] for names in slots.values()],
            min_score=self.settings.min_score,
            max_overlap=self.settings.max_overlap,
            most=self.settings.boxes,
        )
        cells, scores = unite_boxes(boxes, self._instances(frames, boxes), list(slots), len(frames))
        return masks_of(
            cells, scores, min_area=self.settings.min_area, max_area=self.settings.max_area
        )

    def _instances(self, frames: Tensor, boxes: SlotBoxes) -> Tensor:
        """(P, 128, 128) bool mask of each box."""
        if not len(boxes.frame):
            return torch.zeros(0, MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=frames.device)
        needed, frame_index = boxes.frame.unique(return_inverse=True)
        embedded = self.sam.embed(frames[needed])
        masks = self.sam.decode_boxes(embedded, frame_index, boxes.boxes).logits[:, 0] > 0
        return pool_to_cells(masks, embedded.extent)


def unite_boxes(
    boxes: SlotBoxes, instances: Tensor, slots: Sequence[int], num_frames: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Unite the instances of each frame and slot; of several actors, those that act.

    Args:
        boxes: of P instances.
        instances: (P, 128, 128) bool.
        slots: slot of each column of the boxes.
        num_frames: F.

    Returns:
        slot -> (F, 128, 128) bool union, and slot -> (F,) best score, 0 where there is no instance.
    """
    shape = (len(slots), num_frames)
    cells = torch.zeros(*shape, MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=instances.device)
    scores = torch.zeros(shape, device=instances.device)
    # Objects first: a frame's objects must be known when its actors are selected.
    for column in reversed(range(len(slots))):
        for frame in range(num_frames):
            rows = ((boxes.column == column) & (boxes.frame == frame)).nonzero()[:, 0]
            if slots[column] == 0 and len(rows):
                objects = cells[1:, frame].any(dim=0)
                rows = rows[select_actors(instances[rows], objects)]
            if len(rows):
                cells[column, frame] = instances[rows].any(dim=0)
                scores[column, frame] = boxes.scores[rows].amax()
    return dict(zip(slots, cells, strict=True)), dict(zip(slots, scores, strict=True))


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
        sam: SAM's checkpoint, where ``model`` does not say it.
        **options: fields of GroundingDinoSamSettings.

    Returns:
        The segmenter, both models loaded.

    Raises:
        BackendError: transformers or weights are absent, or they are of another model.
        ConfigError: an option is unknown or no number.
    """
    from pipeline.segmenters.sam_clip_weights import load_sam

    dino, _, sam_spec = model.partition(",")
    name = GroundingDinoSam.name
    settings = settings_from(GroundingDinoSamSettings, options, segmenter=name)
    loaded = load_model(
        "GroundingDinoForObjectDetection", dino or DINO_DEFAULT, device=device, backend=name
    )
    decoder, sam_facts = load_sam(Path(sam or sam_spec) if sam or sam_spec else None, device)
    detector = GroundingDino(loaded.model, loaded.tokenizer, short_side=settings.detector_side)
    weights = {**loaded.facts, **sam_facts}
    return GroundingDinoSam(detector, decoder, settings, weights=weights)
