"""What a model that finds concepts is asked for in each slot, and the masks it answers with."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.masks import pack_masks
from pipeline.prompts import PromptSet
from pipeline.segmenters import MASK_SIDE, NUM_SLOTS, Masks


def nouns_by_slot(prompts: PromptSet) -> dict[int, tuple[str, ...]]:
    """Nouns to look for, lower case, without those that only narrow another of their slot.

    CLIP answers weakly to "person" on clothes and is asked for "person in shirt" too; a detector
    that finds persons finds that one.

    Args:
        prompts: of one clip.

    Returns:
        Slot -> its synonyms; slots without nouns are left out.
    """
    named = {0: prompts.actor, **{i: (noun,) for i, noun in enumerate(prompts.objects, start=1)}}
    cleaned = {slot: _distinct(nouns) for slot, nouns in named.items()}
    return {slot: nouns for slot, nouns in cleaned.items() if nouns}


def _distinct(nouns: tuple[str, ...]) -> tuple[str, ...]:
    # Full stops and question marks end a phrase for Grounding DINO.
    words = [noun.lower().replace(".", " ").replace("?", " ").split() for noun in nouns]
    names = list(dict.fromkeys(" ".join(word) for word in words if word))
    wider = [f"{name} " for name in names]
    return tuple(name for name in names if not name.startswith(tuple(wider)))


def masks_of(
    cells: Mapping[int, Tensor], scores: Mapping[int, Tensor], *, min_area: float, max_area: float
) -> Masks:
    """Pack what was found; a mask that covers too little or nearly everything is not found.

    Args:
        cells: slot -> (F, 128, 128) bool.
        scores: slot -> (F,) float in [0, 1]; 0 where nothing was found.
        min_area: least share of the frame that a mask may cover.
        max_area: largest.

    Returns:
        Masks of the F frames; slots that are not given are not found.
    """
    num_frames = len(next(iter(cells.values())))
    all_cells = torch.zeros(num_frames, NUM_SLOTS, MASK_SIDE, MASK_SIDE, dtype=torch.bool)
    score = torch.zeros(num_frames, NUM_SLOTS)
    for slot, own in cells.items():
        all_cells[:, slot], score[:, slot] = own.cpu(), scores[slot].float().cpu()
    area = all_cells.sum(dim=(-2, -1)) / MASK_SIDE**2
    found = (score > 0) & (area >= min_area) & (area <= max_area)
    return Masks(
        bits=pack_masks((all_cells & found[..., None, None]).numpy()),
        found=found.numpy(),
        score=torch.where(found, score, 0.0).numpy().astype(np.float16),
    )
