"""Text features of nouns and of the background that competes with them.

Shape letters: N nouns of a prompt, B background words, E embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.prompts import PromptSet

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


class Noun(NamedTuple):
    """One slot's noun of a clip."""

    slot: int
    """0 actor, 1..3 objects."""
    features: Tensor
    """(synonyms, E), of unit length."""


class PromptText(NamedTuple):
    """Text features that one prompt is scored with."""

    nouns: tuple[Noun, ...]
    background: Tensor
    """(B, E), of unit length."""


class TextBank:
    """Features of words, each encoded once.

    Args:
        encode_texts: the text tower, n texts to (n, E) features of unit length.
    """

    def __init__(self, encode_texts: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode_texts
        self._words: dict[str, Tensor] = {}

    def prompt(self, prompts: PromptSet) -> PromptText:
        """Features of a prompt's nouns, and of the background words that none of them contains."""
        slots = [(0, prompts.actor)] if prompts.actor else []
        slots += [(i, (noun,)) for i, noun in enumerate(prompts.objects, start=1)]
        named = {word for _, nouns in slots for noun in nouns for word in noun.split()}
        background = [word for word in BACKGROUND if not {word, f"{word}s"} & named]
        return PromptText(
            nouns=tuple(Noun(slot, self.features(nouns)) for slot, nouns in slots),
            background=self.features(background),
        )

    def features(self, words: Sequence[str]) -> Tensor:
        """(n, E) features of unit length: the mean over the templates."""
        for word in words:
            if word not in self._words:
                texts = [template.format(word) for template in TEMPLATES]
                self._words[word] = functional.normalize(self._encode(texts).mean(dim=0), dim=-1)
        return torch.stack([self._words[word] for word in words])
