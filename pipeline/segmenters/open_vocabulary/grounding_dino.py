"""Grounding DINO (Liu et al. 2023, arXiv:2303.05499) through transformers: boxes of nouns.

All nouns of a clip go in as one text, "person. hockey stick. puck.", and which noun a box is of is
read from the scores of that noun's own tokens. transformers' processor returns the words above a
threshold instead, which mixes nouns (its pull request 26087).

Shape letters: F frames, V frames of a launch, N nouns, L tokens of the text, Q boxes of a frame.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.segmenters.launches import autocast, launch

SHORT_SIDE = 800
LONG_SIDE = 1333
"""Of the frame at the detector's input, in pixels: short side, unless the long one gets longer."""
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class Detections(NamedTuple):
    """The Q boxes of each of F frames, most of them of nothing."""

    boxes: Tensor
    """(F, Q, 4) float32. x0, y0, x1, y1 as shares of the frame."""
    scores: Tensor
    """(F, Q, N) float32 in [0, 1]. How sure it is that the box holds the noun."""


class Phrases(NamedTuple):
    """Nouns as one text."""

    ids: list[int]
    """L token ids."""
    spans: list[tuple[int, int]]
    """First token of each noun, and the one after its last."""


class GroundingDino:
    """Frames and nouns to boxes.

    Args:
        model: transformers GroundingDinoForObjectDetection.
        tokenizer: tokenizers.Tokenizer of its text encoder.
        short_side: of the frame at the detector's input.
        frames_per_launch: V. None: 1 on the CPU, 4 elsewhere.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        short_side: int = SHORT_SIDE,
        frames_per_launch: int | None = None,
    ) -> None:
        self.model, self.device = model, model.device
        self.short_side = short_side
        self._tokenizer = tokenizer
        self._frames_per_launch = frames_per_launch or (1 if self.device.type == "cpu" else 4)

    @torch.inference_mode()
    def find(self, frames: Tensor, nouns: Sequence[str]) -> Detections:
        """Look for N nouns in (F, H, W, 3) uint8 RGB frames of one size.

        Args:
            frames: of one clip.
            nouns: lower case, without full stops.

        Returns:
            Boxes with their score for every noun.

        Raises:
            ConfigError: the nouns are longer than the text encoder reads.
        """
        phrases = self.phrases(nouns)
        ids = torch.tensor([phrases.ids], device=self.device)

        def find_in(some: Tensor) -> Detections:
            with autocast(self.device):
                output = self.model(
                    pixel_values=self._pixels(some), input_ids=ids.expand(len(some), -1)
                )
            tokens = output.logits.float().sigmoid()
            scores = [tokens[..., first:end].amax(dim=-1) for first, end in phrases.spans]
            return Detections(corners_of(output.pred_boxes.float()), torch.stack(scores, dim=-1))

        return Detections(*launch(find_in, frames, size=self._frames_per_launch))

    def phrases(self, nouns: Sequence[str]) -> Phrases:
        """Join nouns to one text, a full stop after each, and remember where each lies.

        Args:
            nouns: lower case, without full stops.

        Returns:
            Tokens with those of the text's beginning and end.

        Raises:
            ConfigError: the text is longer than the text encoder reads.
        """
        ids, spans = [self._tokenizer.token_to_id("[CLS]")], []
        for noun in nouns:
            own = self._tokenizer.encode(noun, add_special_tokens=False).ids
            spans.append((len(ids), len(ids) + len(own)))
            ids += [*own, self._tokenizer.token_to_id(".")]
        ids.append(self._tokenizer.token_to_id("[SEP]"))
        limit = self.model.config.max_text_len
        if len(ids) > limit:
            raise ConfigError(
                f"prompt {', '.join(nouns)!a:.80} has {len(ids)} tokens; Grounding DINO reads "
                f"{limit}; name fewer or shorter nouns in a file for --prompts"
            )
        return Phrases(ids, spans)

    def _pixels(self, frames: Tensor) -> Tensor:
        """(V, 3, h, w): resized with the aspect kept, and normalised."""
        images = frames.to(self.device).permute(0, 3, 1, 2).float()
        size = detector_size((images.shape[2], images.shape[3]), self.short_side)
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=True
        )
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (PIXEL_MEAN, PIXEL_STD)
        )
        return (images / 255 - mean) / std


def detector_size(frame_size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of a frame at the detector's input, rounded as transformers does."""
    short, long = sorted(frame_size)
    limit = LONG_SIDE * short_side / SHORT_SIDE
    exact = min(short_side, limit * short / long)
    if round(exact) == short:
        return frame_size
    other = int(exact * long / short)
    return (round(exact), other) if frame_size[0] == short else (other, round(exact))


def corners_of(boxes: Tensor) -> Tensor:
    """(..., 4) corners x0, y0, x1, y1 within [0, 1] of boxes given by centre and size."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1).clamp(0, 1)
