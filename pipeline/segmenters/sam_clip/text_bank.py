"""Text features of nouns and of the background that competes with them.

Shape letters: S slots, Y synonyms of the best provided slot, W background words, E embedding.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.prompts import PromptSet
from pipeline.segmenters import NUM_SLOTS
from pipeline.segmenters.mask_packing import upload

TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven that OpenAI's prompt search kept for ImageNet (openai/CLIP, notebooks)."""

BACKGROUND = (
    *("sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands"),
    *("desk", "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling"),
    *("shelf", "curtain", "stair", "floor", "hill", "rail", "fence"),
)
"""Words that stand for what no prompt names; the list of Trident (arXiv:2411.09219)."""


_PROMPTS_KEPT = 1024
"""Every video of SSv2 may have a prompt of its own."""


class PromptText(NamedTuple):
    """Text features that one prompt is scored with, one row of words per slot."""

    words: Tensor
    """(S, Y, E), of unit length; zeros where a slot has fewer words, or none."""
    named: Tensor
    """(S, Y) bool. Which words there are."""
    background: Tensor
    """(W, E), of unit length."""
    kept: Tensor
    """(W,) bool. Background words that no noun contains."""
    slots: tuple[int, ...]
    """Slots that have words, as the host knows them."""
    num_choices: int
    """Nouns and kept background words: what a softmax chooses from."""


class TextBank:
    """Features of words, each encoded once, and of prompts, each put together once.

    Args:
        encode_texts: the text tower, n texts to (n, E) features of unit length.
    """

    def __init__(self, encode_texts: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode_texts
        self._words: dict[str, Tensor] = {}
        self._texts = lru_cache(maxsize=_PROMPTS_KEPT)(self._text)

    def prompt(self, prompts: PromptSet) -> PromptText:
        """Features of a prompt's nouns: the actor's in slot 0, then one object per slot."""
        return self._texts((prompts.actor, *((noun,) for noun in prompts.objects)))

    def features(self, words: Sequence[str]) -> Tensor:
        """(n, E) features of unit length: the mean over the templates."""
        for word in words:
            if word not in self._words:
                texts = [template.format(word) for template in TEMPLATES]
                self._words[word] = functional.normalize(self._encode(texts).mean(dim=0), dim=-1)
        return torch.stack([self._words[word] for word in words])

    def _text(self, nouns: tuple[tuple[str, ...], ...]) -> PromptText:
        background = self.features(BACKGROUND)
        named = np.zeros((NUM_SLOTS, max(1, *map(len, nouns))), np.bool_)
        words = background.new_zeros(*named.shape, background.shape[1])
        for slot, synonyms in enumerate(nouns):
            named[slot, : len(synonyms)] = True
            if synonyms:
                words[slot, : len(synonyms)] = self.features(synonyms)
        spoken = {word for synonyms in nouns for noun in synonyms for word in noun.split()}
        kept = np.array([not {word, f"{word}s"} & spoken for word in BACKGROUND])
        slots = tuple(slot for slot, synonyms in enumerate(nouns) if synonyms)
        return PromptText(
            words=words,
            named=upload(named, background.device),
            background=background,
            kept=upload(kept, background.device),
            slots=slots,
            num_choices=len(slots) + int(kept.sum()),
        )
