"""SAM prompted by CLIP: nouns to cell maps, maps to boxes and points, those to masks.

One CLIP pass per frame gives the probability of each noun against a background vocabulary in every
cell (dense_clip, noun_maps). The strongest connected components of a map (components) prompt SAM
(sam_decoding), whose candidates are judged by the map again (candidates) and united per noun
(assembly). The recipe follows Trident (arXiv:2411.09219) without DINO. A noun that the clip does
not show is not found, rather than given the least bad mask.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Weights: ``sam_clip:SAM_FILE`` or ``sam_clip:SAM_FILE,CLIP``, where SAM_FILE is a checkpoint of
segment_anything (ViT-B, L or H, told apart by its shapes) and CLIP is ``MODEL/TAG`` or
``MODEL/FILE`` of open_clip.

Shape letters: F frames of a clip, N nouns, gh x gw cells of a map, P components over all maps.
"""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE, ClipToSegment, Masks, no_masks
from pipeline.segmenters.assembly import pool_to_cells, unite
from pipeline.segmenters.candidates import choose
from pipeline.segmenters.components import Components, strongest_components
from pipeline.segmenters.dense_clip import DenseFeatures
from pipeline.segmenters.noun_maps import noun_probabilities, presence
from pipeline.segmenters.sam_clip_settings import SamClipSettings
from pipeline.segmenters.sam_decoding import Candidates, EmbeddedFrames
from pipeline.segmenters.text_bank import BACKGROUND, TEMPLATES, PromptText, TextBank


class ClipModel(Protocol):
    """What is asked of CLIP; DenseClip answers."""

    device: torch.device

    def encode_frames(self, frames: Tensor) -> DenseFeatures:
        """Features of (F, H, W, 3) uint8 frames."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, E) features of unit length."""
        ...


class SamModel(Protocol):
    """What is asked of SAM; SamDecoder answers."""

    def embed(self, frames: Tensor) -> EmbeddedFrames:
        """Embed (F, H, W, 3) uint8 frames."""
        ...

    def decode(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor, points: Tensor
    ) -> Candidates:
        """Candidates of P prompts."""
        ...


class SamClip:
    """Segmenter of open_clip and segment_anything, one clip after the other.

    A clip's frames go through together and no other clip's with them, so that masks cannot depend
    on what else is in the call.

    Args:
        clip: cell features and text features.
        sam: masks from prompts.
        settings: numbers of the recipe.
        weights: what the fingerprint says of the two models.
    """

    name = "sam_clip"

    def __init__(
        self,
        clip: ClipModel,
        sam: SamModel,
        settings: SamClipSettings | None = None,
        *,
        weights: dict[str, Any] | None = None,
    ) -> None:
        self.clip, self.sam = clip, sam
        self.settings = settings or SamClipSettings()
        self._bank = TextBank(clip.encode_texts)
        self._weights = weights or {}

    def fingerprint(self) -> dict[str, Any]:
        """Return the models, their weights' sha256, the settings and a hash of the fixed words."""
        words = repr((TEMPLATES, BACKGROUND)).encode()
        settings = {k: v for k, v in asdict(self.settings).items() if k != "prompts_per_launch"}
        return {
            "name": self.name,
            **self._weights,
            **settings,
            "words_sha256": sha256(words).hexdigest(),
            "precision": "bf16" if self.clip.device.type == "cuda" else "fp32",
        }

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Find each clip's actor and objects; what is absent or uncertain is not found."""
        return [self._segment(clip) for clip in clips]

    @torch.inference_mode()
    def _segment(self, clip: ClipToSegment) -> Masks:
        text = self._bank.prompt(clip.prompts)
        if not text.nouns:
            return no_masks(len(clip.frames))
        frames = torch.tensor(clip.frames, device=self.clip.device)
        maps, present = self._maps(frames, text)
        flat = maps.flatten(0, 1)
        peaks = flat.amax(dim=(-2, -1))
        thresholds = (self.settings.peak_share * peaks).clamp(min=self.settings.min_probability)
        # A threshold that nothing exceeds keeps absent nouns out of everything that follows.
        thresholds = torch.where(present.repeat(len(frames)), thresholds, 2.0)
        found = strongest_components(flat, thresholds, self.settings.components)
        instances, scores = self._instances(frames, flat, found, num_nouns=len(text.nouns))
        return unite(
            flat,
            thresholds,
            found.map_index,
            instances,
            scores,
            slots=[noun.slot for noun in text.nouns],
            max_area=self.settings.max_area,
            fallback_score=self.settings.fallback_score,
        )

    def _maps(self, frames: Tensor, text: PromptText) -> tuple[Tensor, Tensor]:
        """(F, N, gh, gw) probabilities, and (N,) bool whether the clip shows the noun."""
        features, scale = self.clip.encode_frames(frames), self.settings.logit_scale
        maps = noun_probabilities(features.cells, text, scale).permute(0, 3, 1, 2)
        by_cells, by_frame = presence(maps, features, text, scale)
        present = (by_cells >= self.settings.min_presence_cells) & (
            by_frame >= self.settings.min_presence_frame
        )
        return maps, present

    def _instances(
        self, frames: Tensor, maps: Tensor, found: Components, *, num_nouns: int
    ) -> tuple[Tensor, Tensor]:
        """(P, 128, 128) bool mask of each component, and (P,) scores; 0 where SAM had none."""
        if not len(found.map_index):
            empty = torch.zeros(0, MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=maps.device)
            return empty, empty.new_zeros(0, dtype=torch.float32)
        needed, frame_index = (found.map_index // num_nouns).unique(return_inverse=True)
        embedded = self.sam.embed(frames[needed])
        parts = []
        for rows in torch.arange(len(frame_index), device=maps.device).split(
            self.settings.prompts_per_launch
        ):
            chosen = choose(
                self.sam.decode(embedded, frame_index[rows], found.boxes[rows], found.peaks[rows]),
                maps[found.map_index[rows]],
                found.peak_values[rows],
                embedded.extent,
                min_area=self.settings.min_area,
                max_area=self.settings.max_area,
            )
            parts.append((pool_to_cells(chosen.masks, embedded.extent), chosen.score))
        masks, scores = zip(*parts, strict=True)
        return torch.cat(masks), torch.cat(scores)


def build(
    model: str,
    *,
    device: str,
    masks: Path | None,
    sam_checkpoint: Path | None = None,
    clip: str | None = None,
    **options: Any,
) -> SamClip:
    """Registry entry.

    Args:
        model: ``SAM_FILE`` or ``SAM_FILE,CLIP``; empty where the two arguments below say it.
        device: torch device of both models.
        masks: not used.
        sam_checkpoint: segment_anything checkpoint.
        clip: ``MODEL/TAG`` or ``MODEL/FILE`` of open_clip.
        **options: ``mode`` and ``clip_short_side`` of dense_clip; fields of SamClipSettings.

    Returns:
        The segmenter, both models loaded.

    Raises:
        BackendError: weights are absent or do not fit.
    """
    from pipeline.segmenters.sam_clip_weights import CLIP_DEFAULT, load_clip, load_sam

    sam_file, _, clip_spec = model.partition(",")
    sam, sam_facts = load_sam(sam_checkpoint or (Path(sam_file) if sam_file else None), device)
    dense = {"mode": options.pop("mode", "clearclip")}
    dense["short_side"] = options.pop("clip_short_side", 448)
    dense_clip, clip_facts = load_clip(clip or clip_spec or CLIP_DEFAULT, device, **dense)
    settings = SamClipSettings(**options)
    return SamClip(dense_clip, sam, settings, weights={**clip_facts, **sam_facts})
