"""Probability of each noun in each cell, and whether a clip shows the noun at all.

Probabilities are computed clip by clip, in shapes that the clip alone decides.

Shape letters: C clips, F frames of each, B = C * F, S slots, gh x gw cells, E embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.segmenters import NUM_SLOTS
from pipeline.segmenters.sam_clip.dense_clip import DenseFeatures
from pipeline.segmenters.sam_clip.settings import SamClipSettings
from pipeline.segmenters.sam_clip.text_bank import PromptText

TOP_SHARE = 0.05
ABSENT = 2.0
"""A threshold that no probability exceeds keeps absent nouns out of everything that follows."""


class NounMaps(NamedTuple):
    """Where B frames show their nouns."""

    maps: Tensor
    """(B, S, gh, gw) float. Probabilities."""
    thresholds: Tensor
    """(B, S) float. Where each map is cut; ABSENT where the clip does not show the noun."""
    named: NDArray[np.bool_]
    """(B, S), on the host. Whether the prompt names anything for the slot."""


class Presence(NamedTuple):
    """How much a clip shows each slot's noun.

    Both are means over the clip, so that one blurred frame neither finds nor loses a noun.
    """

    by_cells: Tensor
    """(S,) mean probability in the best 5 % of each frame's cells."""
    by_frame: Tensor
    """(S,) mean probability of the class token, as a multiple of chance over all words."""


def noun_probabilities(features: Tensor, text: PromptText, scale: float) -> Tensor:
    """Softmax over the prompt's nouns and the background words, of which the nouns are kept.

    A noun with synonyms scores by its best synonym, so it enters the softmax once.

    Args:
        features: (..., E) float of unit length: cells or whole frames.
        text: nouns and background.
        scale: factor on the cosines; 40 with dense features (ProxyCLIP, arXiv:2408.04883).

    Returns:
        (..., S) float. 0 for a slot without words.
    """
    slots = text.words.shape[:2]
    vocabulary = torch.cat([text.words.flatten(0, 1), text.background])
    listed = torch.cat([text.named.flatten(), text.kept])
    logits = torch.where(listed, scale * (features @ vocabulary.T), -torch.inf)
    nouns, background = logits.split([slots.numel(), len(text.kept)], dim=-1)
    best = nouns.unflatten(-1, slots).amax(dim=-1)
    return torch.cat([best, background], dim=-1).softmax(dim=-1)[..., : slots[0]]


def presence(maps: Tensor, features: DenseFeatures, text: PromptText, scale: float) -> Presence:
    """Measure how much a clip shows each noun.

    Args:
        maps: (F, S, gh, gw) float. Probabilities per cell.
        features: of the same frames.
        text: what the maps were made with.
        scale: as for the maps.

    Returns:
        By cells and by frame.
    """
    cells = maps.flatten(2)
    count = max(1, round(TOP_SHARE * cells.shape[-1]))
    by_cells = cells.topk(count, dim=-1).values.mean(dim=(0, 2))
    by_frame = noun_probabilities(features.frame, text, scale).mean(dim=0)
    return Presence(by_cells, by_frame * text.num_choices)


def noun_maps(
    features: DenseFeatures, texts: Sequence[PromptText], settings: SamClipSettings
) -> NounMaps:
    """Map the nouns of each clip's prompt in its own frames.

    Args:
        features: of B frames, clip after clip.
        texts: (C,) prompts.
        settings: numbers of the recipe.

    Returns:
        Maps, with what they are cut at.
    """
    num_frames = len(features.cells) // len(texts)
    clips = zip(features.cells.split(num_frames), features.frame.split(num_frames), strict=True)
    parts = [
        _clip_maps(DenseFeatures(*clip), text, settings)
        for clip, text in zip(clips, texts, strict=True)
    ]
    maps, thresholds = (torch.cat(column) for column in zip(*parts, strict=True))
    named = np.array([[slot in text.slots for slot in range(NUM_SLOTS)] for text in texts])
    return NounMaps(maps, thresholds, named.repeat(num_frames, axis=0))


def _clip_maps(
    features: DenseFeatures, text: PromptText, settings: SamClipSettings
) -> tuple[Tensor, Tensor]:
    """(F, S, gh, gw) maps and (F, S) thresholds of one clip."""
    scale = settings.logit_scale
    maps = noun_probabilities(features.cells, text, scale).permute(0, 3, 1, 2).contiguous()
    seen = presence(maps, features, text, scale)
    shown = (seen.by_cells >= settings.min_presence_cells) & (
        seen.by_frame >= settings.min_presence_frame
    )
    peaks = maps.amax(dim=(-2, -1))
    thresholds = (settings.peak_share * peaks).clamp(min=settings.min_probability)
    return maps, torch.where(shown, thresholds, ABSENT)
