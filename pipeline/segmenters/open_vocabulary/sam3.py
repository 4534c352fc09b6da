"""SAM 3 as a segmenter: every noun of a clip is looked for in every frame by itself.

The masks are those of SAM 3's semantic head, all instances of a noun united; what counts as found
is decided by the score that SAM 3 keeps its own instances by. Of several actors, those that do not
act are left out. The weights are under the SAM License and gated: accept it on the page of
facebook/sam3 and log in, or name a folder with them.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Shape letters: F frames of a clip, N nouns of a slot, K instances of a noun, S side of a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE, NUM_SLOTS
from pipeline.segmenters.assembly import pool_to_cells, select_actors
from pipeline.segmenters.mask_packing import SlotMasks
from pipeline.segmenters.open_vocabulary.noun_segmenter import NounSegmenter
from pipeline.segmenters.open_vocabulary.sam3_model import ConceptMasks, Sam3Concepts
from pipeline.segmenters.open_vocabulary.transformers_models import load_model
from pipeline.segmenters.options import settings_from

SAM3_DEFAULT = "facebook/sam3"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sam3Settings:
    """Every number that decides the masks."""

    min_presence: float = 0.5
    """Least probability that the frame shows the noun. Our choice: more likely than not."""
    min_score: float = 0.5
    """Least presence times probability of the best instance. Our choice: transformers keeps
    instances from 0.3 on, but a wrong mask is learnt from and an absent one is not."""
    min_area: float = 5e-4
    """Least share of the frame that a mask may cover; as for sam_clip."""
    max_area: float = 0.9
    """Largest."""


class ConceptModel(Protocol):
    """What is asked of SAM 3; Sam3Concepts answers."""

    device: torch.device

    def find(self, frames: Tensor, nouns: Sequence[str]) -> ConceptMasks:
        """Look for nouns in (F, H, W, 3) uint8 frames."""
        ...


class Sam3(NounSegmenter):
    """Segmenter of SAM 3, one clip after the other.

    Args:
        concepts: the model.
        settings: thresholds.
        weights: what the fingerprint says of the model.
    """

    name = "sam3"
    settings: Sam3Settings

    def __init__(
        self,
        concepts: ConceptModel,
        settings: Sam3Settings | None = None,
        *,
        weights: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(concepts.device, settings or Sam3Settings(), weights)
        self.concepts = concepts

    def find(
        self, frames: Tensor, nouns: Sequence[str], places: Mapping[int, Sequence[int]]
    ) -> SlotMasks:
        """Unite all instances of each slot's nouns; of several actors, those that act."""
        answers = self._certain(self.concepts.find(frames, nouns))
        shape, device = (len(frames), NUM_SLOTS), answers.logits.device
        masks = SlotMasks(
            torch.zeros(*shape, MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=device),
            torch.zeros(shape, device=device),
        )
        for slot, own_places in places.items():
            own = _of_nouns(answers, own_places)
            masks.cells[:, slot] = _to_cells((own.logits > 0).any(dim=1))
            masks.score[:, slot] = own.scores.flatten(1).amax(dim=1)
        if 0 in places:
            actors = _of_nouns(answers, places[0])
            masks.cells[:, 0] &= ~bystanders(actors, masks.cells[:, 1:].any(dim=1))
        return masks

    def _certain(self, answers: ConceptMasks) -> ConceptMasks:
        """Blank what SAM 3 is not sure of; scores become those of noun and instance together."""
        scores = answers.presence[..., None] * answers.scores
        sure = (scores >= self.settings.min_score) & (
            answers.presence >= self.settings.min_presence
        ).unsqueeze(-1)
        return ConceptMasks(
            logits=torch.where(sure.any(dim=2)[..., None, None], answers.logits, -1.0),
            presence=answers.presence,
            scores=torch.where(sure, scores, 0.0),
            instances=answers.instances & sure[..., None, None],
        )


def bystanders(actors: ConceptMasks, objects: Tensor) -> Tensor:
    """Where actors are that do not act, and no other actor is.

    Args:
        actors: what SAM 3 is sure of, of (F, N) synonyms of the actor.
        objects: (F, 128, 128) bool. Union of a frame's objects.

    Returns:
        (F, 128, 128) bool.
    """
    people = _to_cells(actors.instances.flatten(1, 2))
    valid = people.any(dim=(-2, -1))
    acting = select_actors(people, objects, valid)[..., None, None]
    return (people & ~acting).any(dim=1) & ~(people & acting).any(dim=1)


def _of_nouns(answers: ConceptMasks, columns: Sequence[int]) -> ConceptMasks:
    return ConceptMasks(*(part[:, columns] for part in answers))


def _to_cells(pixels: Tensor) -> Tensor:
    """Pool (..., S, S) bool masks, all of which the frame fills, to (..., 128, 128) bool."""
    side = float(pixels.shape[-1])
    return pool_to_cells(pixels, (side, side))


def build(model: str, *, device: str, masks: Path | None, **options: Any) -> Sam3:
    """Registry entry.

    Args:
        model: folder, or owner/name on the hub; empty for SAM3_DEFAULT.
        device: torch device.
        masks: not used.
        **options: fields of Sam3Settings.

    Returns:
        The segmenter, its model loaded.

    Raises:
        BackendError: transformers or the weights are absent, or they are of another model.
        ConfigError: an option is unknown or no number.
    """
    settings = settings_from(Sam3Settings, options, segmenter=Sam3.name)
    loaded = load_model("Sam3Model", model or SAM3_DEFAULT, device=device, backend=Sam3.name)
    return Sam3(Sam3Concepts(loaded.model, loaded.tokenizer), settings, weights=loaded.facts)
