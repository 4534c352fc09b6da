"""Probability of each noun in each cell, and whether a clip shows the noun at all.

Shape letters: F frames of a clip, N nouns, gh x gw cells, E embedding.
"""

import torch
from torch import Tensor

from pipeline.segmenters.dense_clip import DenseFeatures
from pipeline.segmenters.text_bank import PromptText

TOP_SHARE = 0.05


def noun_probabilities(features: Tensor, text: PromptText, scale: float) -> Tensor:
    """Softmax over the prompt's nouns and the background words, of which the nouns are kept.

    A noun with synonyms scores by its best synonym, so it enters the softmax once.

    Args:
        features: (..., E) float of unit length: cells or whole frames.
        text: nouns and background, N >= 1.
        scale: factor on the cosines; 40 with dense features (ProxyCLIP, arXiv:2408.04883).

    Returns:
        (..., N) float.
    """
    best = [(features @ noun.features.T).amax(dim=-1, keepdim=True) for noun in text.nouns]
    cosines = torch.cat([*best, features @ text.background.T], dim=-1)
    return (scale * cosines).softmax(dim=-1)[..., : len(best)]


def presence(
    maps: Tensor, features: DenseFeatures, text: PromptText, scale: float
) -> tuple[Tensor, Tensor]:
    """How much a clip shows each noun: by its best cells, and by its frames as a whole.

    Both are means over the clip, so that one blurred frame neither finds nor loses a noun.

    Args:
        maps: (F, N, gh, gw) float. Probabilities per cell.
        features: of the same frames.
        text: what the maps were made with.
        scale: as for the maps.

    Returns:
        (N,) mean of the best 5 % of cells, and (N,) mean probability of the class token, as a
        multiple of chance over nouns and background words.
    """
    cells = maps.flatten(2)
    count = max(1, round(TOP_SHARE * cells.shape[-1]))
    by_cells = cells.topk(count, dim=-1).values.mean(dim=(0, 2))
    by_frame = noun_probabilities(features.frame, text, scale).mean(dim=0)
    return by_cells, by_frame * (len(text.nouns) + len(text.background))
