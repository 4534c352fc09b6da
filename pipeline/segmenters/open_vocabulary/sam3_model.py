"""SAM 3 (Meta, 2025) through transformers: which pixels of a frame show a noun.

The vision encoder runs once per frame and the rest once per (frame, noun).

Shape letters: F frames, N nouns, K instances of a noun, V frames of a vision launch, P pairs of a
launch of the rest, L tokens of a noun, C channels, S side of SAM 3's masks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters.launches import autocast, launch

NOUN_TOKENS = 32
"""SAM 3's own limit; shorter nouns are padded to it."""
MAX_INSTANCES = 8
"""K: how many of the 200 instances that SAM 3 offers are looked at, best first."""
PIXEL_MEAN = PIXEL_STD = 0.5
"""Of all channels, for pixels in [0, 1]; those of transformers' Sam3ImageProcessor."""


class ConceptMasks(NamedTuple):
    """What SAM 3 says of N nouns in F frames."""

    logits: Tensor
    """(F, N, S, S) float32 over the whole frame; a pixel shows the noun above 0."""
    presence: Tensor
    """(F, N) float32 in [0, 1]. Probability that the frame shows the noun at all."""
    scores: Tensor
    """(F, N, K) float32 in [0, 1], falling. Probability of each instance, if the noun is there."""
    instances: Tensor
    """(F, N, K, S, S) bool. Mask of each instance."""


class Sam3Concepts:
    """Frames and nouns to masks.

    Args:
        model: transformers Sam3Model.
        tokenizer: tokenizers.Tokenizer of its text encoder.
        frames_per_launch: V. None: 1 on the CPU, 4 elsewhere.
        pairs_per_launch: P. None: 1 on the CPU, 8 elsewhere, where a copy of one frame's features
            takes 56 MB.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        frames_per_launch: int | None = None,
        pairs_per_launch: int | None = None,
    ) -> None:
        self.model, self.device = model, model.device
        on_cpu = self.device.type == "cpu"
        self._frames_per_launch = frames_per_launch or (1 if on_cpu else 4)
        self._pairs_per_launch = pairs_per_launch or (1 if on_cpu else 8)
        size = model.config.image_size
        self.side: int = size if isinstance(size, int) else size[0]
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(NOUN_TOKENS)
        tokenizer.enable_padding(length=NOUN_TOKENS)
        self._nouns: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.inference_mode()
    def find(self, frames: Tensor, nouns: Sequence[str]) -> ConceptMasks:
        """Look for N nouns in (F, H, W, 3) uint8 RGB frames of one size."""
        text = [torch.stack(part) for part in zip(*map(self._noun, nouns), strict=True)]

        def find_in(some: Tensor) -> ConceptMasks:
            return self._find_in_launch(some, *text)

        return ConceptMasks(*launch(find_in, frames, size=self._frames_per_launch))

    def _find_in_launch(self, frames: Tensor, features: Tensor, mask: Tensor) -> ConceptMasks:
        """Look for N nouns of (N, L, C) features and (N, L) mask in V frames."""
        num_nouns = len(mask)
        with autocast(self.device):
            vision = self.model.get_vision_features(self._pixels(frames))

        def answer(pairs: Tensor) -> ConceptMasks:
            frame, noun = pairs // num_nouns, pairs % num_nouns
            with autocast(self.device):
                output = self.model(
                    vision_embeds=_rows_of(vision, frame),
                    text_embeds=_text_output(features[noun]),
                    # Without it padding is attended.
                    attention_mask=mask[noun],
                )
            return _concepts(output)

        pairs = torch.arange(len(frames) * num_nouns, device=self.device)
        answers = launch(answer, pairs, size=self._pairs_per_launch)
        return ConceptMasks(*(part.unflatten(0, (-1, num_nouns)) for part in answers))

    def _noun(self, noun: str) -> tuple[Tensor, Tensor]:
        """(L, C) features and (L,) int64 mask of a noun, encoded once and alone."""
        if noun not in self._nouns:
            encoded = self._tokenizer.encode(noun)
            ids, mask = (
                torch.tensor([values], device=self.device)
                for values in (encoded.ids, encoded.attention_mask)
            )
            with autocast(self.device):
                output = self.model.get_text_features(input_ids=ids, attention_mask=mask)
            self._nouns[noun] = output.pooler_output[0], mask[0]
        return self._nouns[noun]

    def _pixels(self, frames: Tensor) -> Tensor:
        """(V, 3, side, side): SAM 3 takes the whole frame, its sides stretched to a square."""
        images = frames.to(self.device).permute(0, 3, 1, 2).float()
        images = functional.interpolate(
            images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
        )
        return (images / 255 - PIXEL_MEAN) / PIXEL_STD


def _rows_of(vision: Any, rows: Tensor) -> Any:
    """The vision encoder's output with one row per pair."""
    # Positions are the same for all frames, so they need no copies.
    return type(vision)(
        fpn_hidden_states=tuple(level[rows] for level in vision.fpn_hidden_states),
        fpn_position_encoding=tuple(
            level[:1].expand(len(rows), -1, -1, -1) for level in vision.fpn_position_encoding
        ),
    )


def _concepts(output: Any) -> ConceptMasks:
    """What the model says of P pairs."""
    count = min(MAX_INSTANCES, output.pred_logits.shape[1])
    scores, best = output.pred_logits.float().sigmoid().topk(count, dim=1)
    pairs = torch.arange(len(best), device=best.device)[:, None]
    return ConceptMasks(
        logits=output.semantic_seg.float().squeeze(1),
        presence=output.presence_logits.float().sigmoid().flatten(),
        scores=scores,
        instances=output.pred_masks[pairs, best] > 0,
    )


def _text_output(features: Tensor) -> Any:
    """Features as get_text_features returns them: the model takes that object, not a tensor."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return BaseModelOutputWithPooling(pooler_output=features)
