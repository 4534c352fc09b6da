"""SAM prompted by CLIP: nouns to cell maps, maps to boxes and points, those to masks.

One CLIP pass per frame gives the probability of each noun against a background vocabulary in every
cell (dense_clip, noun_maps). The strongest connected components of a map (components) prompt SAM
(sam.decoding), whose candidates are judged by the map again (candidates) and united per noun
(assembly). The recipe follows Trident (arXiv:2411.09219) without DINO. A noun that the clip does
not show is not found, rather than given the least bad mask. With ``proposals`` "grid", a grid of
points prompts SAM instead, and CLIP names the masks (grid_instances).

All clips of a call whose frames are alike go through together, in launches of one fixed shape, so
that masks cannot depend on what else is in the call. On a GPU the layout is fixed too: every slot
that a prompt names has room for the same number of masks, found or not, and nothing waits for the
GPU until its packed masks are fetched.

No threshold here has been tuned: masks of this segmenter have not been measured with real weights.

Weights: ``sam_clip[:SAM[,CLIP]]``, where SAM is vit_b, vit_l, vit_h or a checkpoint of
segment_anything, and CLIP is ``MODEL/TAG`` or ``MODEL/FILE`` of open_clip.

Shape letters: B frames of C clips of one shape, S slots, K instances per slot, gh x gw cells.
"""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.segmenters import ClipToSegment, Masks
from pipeline.segmenters.assembly import cut_maps, unite
from pipeline.segmenters.mask_packing import Fetch
from pipeline.segmenters.sam.points import PointDecoder, ProposalSettings
from pipeline.segmenters.sam_clip.clip_batches import ClipBatch, batches_of
from pipeline.segmenters.sam_clip.dense_attention import check_mode
from pipeline.segmenters.sam_clip.dense_clip import DenseFeatures
from pipeline.segmenters.sam_clip.frame_embedder import Embedding, FrameEmbedder, over_frame
from pipeline.segmenters.sam_clip.grid_instances import grid_instances
from pipeline.segmenters.sam_clip.map_instances import PromptedSam, prompted_instances
from pipeline.segmenters.sam_clip.noun_maps import NounMaps, noun_maps
from pipeline.segmenters.sam_clip.settings import SamClipSettings, settings_of
from pipeline.segmenters.sam_clip.text_bank import BACKGROUND, TEMPLATES, TextBank


class ClipModel(Protocol):
    """What is asked of CLIP; DenseClip answers."""

    device: torch.device

    @property
    def needs_proxy(self) -> bool:
        """Whether encode_frames is to be given another model's features."""
        ...

    def encode_frames(self, frames: Tensor, proxy: Tensor | None = None) -> DenseFeatures:
        """Features of (B, H, W, 3) uint8 frames."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, E) features of unit length."""
        ...


class SamModel(Embedding, PromptedSam, PointDecoder, Protocol):
    """What is asked of SAM; SamDecoder answers."""

    mask_side: int


class SamClip:
    """Segmenter of open_clip and segment_anything.

    Args:
        clip: cell features and text features.
        sam: masks from prompts.
        settings: numbers of the recipe.
        grid: numbers of the proposals, where a grid of points makes them.
        weights: what the fingerprint says of the two models.
        fixed: decode what may be there, not what is there; None: on a GPU.
    """

    name = "sam_clip"

    def __init__(
        self,
        clip: ClipModel,
        sam: SamModel,
        settings: SamClipSettings | None = None,
        *,
        grid: ProposalSettings | None = None,
        weights: dict[str, Any] | None = None,
        fixed: bool | None = None,
    ) -> None:
        self.clip, self.sam = clip, sam
        self.settings = settings or SamClipSettings()
        self._grid = grid or ProposalSettings()
        self._bank = TextBank(clip.encode_texts)
        self._weights = weights or {}
        self._fixed = clip.device.type != "cpu" if fixed is None else fixed

    def fingerprint(self) -> dict[str, Any]:
        """Return the models, their weights' sha256, the settings and a hash of the fixed words."""
        words = repr((TEMPLATES, BACKGROUND)).encode()
        grid = {"grid": asdict(self._grid)} if self.settings.proposals == "grid" else {}
        return {
            "name": self.name,
            **self._weights,
            **asdict(self.settings),
            **grid,
            "words_sha256": sha256(words).hexdigest(),
            "precision": "bf16" if self.clip.device.type == "cuda" else "fp32",
        }

    @torch.inference_mode()
    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Find each clip's actor and objects; what is absent or uncertain is not found."""
        batches = [*batches_of(clips, self._bank, self.clip.device)]
        # A GPU has work in hand for the last batch before the first is waited for.
        begun = [self._begin(batch) for batch in batches]
        masks: dict[int, Masks] = {}
        for batch, fetch in zip(batches, begun, strict=True):
            masks.update(zip(batch.places, fetch.masks(batch.num_frames), strict=True))
        return [masks[place] for place in range(len(clips))]

    def _begin(self, batch: ClipBatch) -> Fetch:
        frames = FrameEmbedder(self.sam, batch.frames)
        proxy = None
        if self.clip.needs_proxy:
            proxy = over_frame(frames.of_all(), self.sam.mask_side)
        features = self.clip.encode_frames(batch.frames, proxy)
        nouns = noun_maps(features, batch.texts, self.settings)
        instances, scores = self._instances(batch, frames, features, nouns)
        otherwise = cut_maps(
            nouns.maps,
            nouns.thresholds,
            max_area=self.settings.max_area,
            score_factor=self.settings.fallback_score,
        )
        return Fetch(unite(instances, scores, otherwise))

    def _instances(
        self, batch: ClipBatch, frames: FrameEmbedder, features: DenseFeatures, nouns: NounMaps
    ) -> tuple[Tensor, Tensor]:
        """(B, S, K, 128, 128) bool, and (B, S, K) scores."""
        settings, fixed = self.settings, self._fixed
        if settings.proposals == "prompts":
            return prompted_instances(self.sam, frames, nouns, settings, fixed=fixed)
        cells, texts = features.cells, batch.texts
        return grid_instances(
            self.sam, frames, cells, texts, nouns, settings, self._grid, fixed=fixed
        )


def build(
    model: str,
    *,
    device: str,
    masks: Path | None,
    sam: str | None = None,
    clip: str | None = None,
    **options: Any,
) -> SamClip:
    """Registry entry.

    Args:
        model: ``SAM`` or ``SAM,CLIP``; empty where the two arguments below say it.
        device: torch device of both models.
        masks: not used.
        sam: vit_b, vit_l, vit_h, or a segment_anything checkpoint.
        clip: ``MODEL/TAG`` or ``MODEL/FILE`` of open_clip.
        **options: fields of SamClipModels and SamClipSettings.

    Returns:
        The segmenter, both models loaded.

    Raises:
        BackendError: weights are absent or do not fit.
        ConfigError: there is no such option, or it has no such value.
    """
    from pipeline.segmenters.sam.loading import load_sam
    from pipeline.segmenters.sam_clip.weights import CLIP_DEFAULT, load_clip

    models, settings = settings_of(options)
    check_mode(models.mode)
    sam_spec, _, clip_spec = model.partition(",")
    decoder, sam_facts = load_sam(
        sam or sam_spec or None, device, side=models.sam_side, compile=bool(models.compile)
    )
    dense_clip, clip_facts = load_clip(
        clip or clip_spec or CLIP_DEFAULT,
        device,
        mode=models.mode,
        short_side=models.clip_short_side,
    )
    return SamClip(dense_clip, decoder, settings, weights={**clip_facts, **sam_facts})
