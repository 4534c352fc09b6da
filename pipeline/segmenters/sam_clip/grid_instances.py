"""Instances of nouns: SAM's masks from a grid of points, named by what CLIP sees in them.

Finds parts that no map is strong enough to prompt, at the price of some 256 prompts a frame.

Shape letters: S slots, K instances per slot, Q proposals of a frame, gh x gw cells, E embedding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters import MASK_SIDE
from pipeline.segmenters.assembly import cover_of_cells, pool_to_cells
from pipeline.segmenters.sam.points import PointDecoder, ProposalSettings, propose
from pipeline.segmenters.sam_clip.frame_embedder import FrameEmbedder
from pipeline.segmenters.sam_clip.noun_maps import ABSENT, NounMaps, noun_probabilities
from pipeline.segmenters.sam_clip.settings import SamClipSettings
from pipeline.segmenters.sam_clip.text_bank import PromptText


def grid_instances(
    sam: PointDecoder,
    frames: FrameEmbedder,
    cells: Tensor,
    texts: Sequence[PromptText],
    nouns: NounMaps,
    settings: SamClipSettings,
    grid: ProposalSettings,
    *,
    fixed: bool,
) -> tuple[Tensor, Tensor]:
    """Propose masks for every frame and keep those that show a noun.

    Args:
        sam: the decoder.
        frames: B frames.
        cells: (B, gh, gw, E) float of unit length, CLIP's.
        texts: (C,) prompts; B / C frames belong to each.
        nouns: maps of the frames.
        settings: numbers of the recipe.
        grid: numbers of the proposals.
        fixed: take every frame whose prompt has a noun; False takes those whose clip shows one,
            for which a GPU would have to stop. The results are the same.

    Returns:
        (B, S, K, 128, 128) bool, and (B, S, K) scores; 0 where fewer are kept.
    """
    layout = (*nouns.named.shape, settings.components)
    masks = torch.zeros(*layout, MASK_SIDE, MASK_SIDE, dtype=torch.bool, device=cells.device)
    scores = torch.zeros(layout, device=cells.device)
    wanted = nouns.named if fixed else (nouns.thresholds < ABSENT).numpy()
    # Frame by frame: one has hundreds of prompts, and masks of a MB each.
    for number in np.flatnonzero(wanted.any(axis=1)).tolist():
        embedded = frames.of(np.array([number]))
        proposals = propose(sam, embedded, grid)
        masks[number], scores[number] = name_proposals(
            proposals.masks[0],
            proposals.quality[0],
            cells[number],
            texts[number * len(texts) // len(cells)],
            nouns.thresholds[number],
            embedded.extent,
            settings,
        )
    return masks, scores


def name_proposals(
    masks: Tensor,
    quality: Tensor,
    cells: Tensor,
    text: PromptText,
    thresholds: Tensor,
    extent: tuple[float, float],
    settings: SamClipSettings,
) -> tuple[Tensor, Tensor]:
    """Keep the proposals of one frame that show a noun.

    A proposal goes to the noun that the mean of the cell features under it resembles most, if it
    does so above the noun's threshold; of more than K, those of the largest probability times area
    stay, so that a whole is preferred to its parts.

    Args:
        masks: (Q, S, S) bool, S the side of SAM's masks.
        quality: (Q,) float. SAM's own; 0 for what is no proposal.
        cells: (gh, gw, E) float of unit length.
        text: the prompt.
        thresholds: (S,) float. Least probability of each slot's noun.
        extent: rows and columns of the masks that the frame fills.
        settings: numbers of the recipe.

    Returns:
        (S, K, 128, 128) bool, and (S, K) scores: probability times the root of the quality, 0
        where fewer are kept.
    """
    grid = (cells.shape[0], cells.shape[1])
    cover = cover_of_cells(masks, extent, grid).float()
    pooled = functional.normalize(cover.flatten(1) @ cells.flatten(0, 1), dim=1)
    probability = noun_probabilities(pooled, text, settings.logit_scale)
    area = cover.mean(dim=(-2, -1))[:, None]
    best = probability == probability.amax(dim=1, keepdim=True)
    accepted = best & (probability >= thresholds) & (quality > 0)[:, None]
    accepted &= (area >= settings.min_area) & (area <= settings.max_area)
    mass = torch.where(accepted, probability * area, 0.0)
    ranked = mass.sort(dim=0, descending=True, stable=True).indices[: settings.components].T
    score = torch.where(accepted, probability * quality.clamp(0, 1).sqrt()[:, None], 0.0)
    return pool_to_cells(masks, extent)[ranked], score.T.gather(1, ranked)
