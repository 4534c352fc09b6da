"""Instances of nouns: SAM prompted with the strongest components of their maps.

Shape letters: B frames, S slots, K components per slot, R = B * S * K places for components, P of
them that are decoded together, N candidates of each, gh x gw cells.
"""

from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.segmenters import MASK_SIDE
from pipeline.segmenters.assembly import pool_to_cells
from pipeline.segmenters.launches import launch
from pipeline.segmenters.mask_packing import upload
from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames
from pipeline.segmenters.sam_clip.candidates import choose
from pipeline.segmenters.sam_clip.components import Components, strongest_components
from pipeline.segmenters.sam_clip.frame_embedder import FrameEmbedder
from pipeline.segmenters.sam_clip.noun_maps import NounMaps
from pipeline.segmenters.sam_clip.settings import SamClipSettings

FRAMES_AT_ONCE = 32
"""Frames whose prompts a GPU decodes together; each has up to 12, and a prompt 1 MB of logits."""


class PromptedSam(Protocol):
    """What is asked of SAM; SamDecoder answers."""

    prompts_per_launch: int

    def decode(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor, points: Tensor
    ) -> Candidates:
        """Candidates of P prompts."""
        ...


def prompted_instances(
    sam: PromptedSam,
    frames: FrameEmbedder,
    nouns: NounMaps,
    settings: SamClipSettings,
    *,
    fixed: bool,
) -> tuple[Tensor, Tensor]:
    """Decode each noun's strongest components and keep the best mask of each.

    Args:
        sam: the decoder.
        frames: B frames.
        nouns: their maps.
        settings: numbers of the recipe.
        fixed: decode a component in every place where a prompt has a noun, since a GPU would have
            to stop to say where there is one. The results are the same.

    Returns:
        (B, S, K, 128, 128) bool, and (B, S, K) scores; 0 where there is no acceptable mask.
    """
    maps, count = nouns.maps.flatten(0, 1), settings.components
    found = strongest_components(maps, nouns.thresholds.flatten(), count, fixed=fixed)
    wanted = nouns.named.repeat(count) if fixed else found.valid.flatten().numpy()
    places = np.flatnonzero(wanted)
    needed, frame_index = np.unique(places // (nouns.named.shape[1] * count), return_inverse=True)
    masks = torch.zeros(len(wanted), MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=maps.device)
    scores = torch.zeros(len(wanted), device=maps.device)
    at_once = FRAMES_AT_ONCE if fixed else 1
    for first in range(0, len(needed), at_once):
        own = (frame_index >= first) & (frame_index < first + at_once)
        rows, index = (upload(a[own], maps.device) for a in (places, frame_index - first))
        embedded = frames.of(needed[first : first + at_once])
        chosen = _decoded(sam, embedded, index, maps, found, rows, settings)
        masks.index_copy_(0, rows, chosen[0])
        scores.index_copy_(0, rows, chosen[1])
    layout = (*nouns.named.shape, count)
    return masks.unflatten(0, layout), scores.unflatten(0, layout)


def _decoded(
    sam: PromptedSam,
    embedded: EmbeddedFrames,
    frame_index: Tensor,
    maps: Tensor,
    found: Components,
    rows: Tensor,
    settings: SamClipSettings,
) -> tuple[Tensor, Tensor]:
    """(P, 128, 128) bool best masks of the components in P places, and (P,) scores."""
    boxes, peaks = (field.flatten(0, 1)[rows] for field in (found.boxes, found.peaks))
    candidates = sam.decode(embedded, frame_index, boxes, peaks)
    masks, scores = launch(
        partial(_judged, embedded.extent, settings),
        candidates.logits,
        candidates.quality,
        maps[rows // settings.components],
        found.peak_values.flatten()[rows],
        size=sam.prompts_per_launch,
    )
    return masks, torch.where(found.valid.flatten()[rows], scores, 0.0)


def _judged(
    extent: tuple[float, float],
    settings: SamClipSettings,
    logits: Tensor,
    quality: Tensor,
    maps: Tensor,
    peak_values: Tensor,
) -> tuple[Tensor, Tensor]:
    chosen = choose(
        Candidates(logits, quality),
        maps,
        peak_values,
        extent,
        min_area=settings.min_area,
        max_area=settings.max_area,
    )
    return pool_to_cells(chosen.masks, extent), chosen.score
