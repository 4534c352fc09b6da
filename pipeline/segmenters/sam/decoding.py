"""SAM (Kirillov et al. 2023, arXiv:2304.02643) for prompts that belong to many frames.

segment_anything's own decoder takes prompts of one frame per call. Here every prompt brings its
frame's embedding along (mask_decoder); the numbers are those of SamPredictor.

Every launch has one shape: the last is filled up with repetitions, which are dropped. So a result
depends on the frame and its prompt alone, not on their company. Nothing here makes a GPU wait for
the CPU.

Shape letters: B frames, P prompts, K tokens of a prompt, N masks per prompt, C channels, S side of
the low-resolution masks, 4 times that of the embedding.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.segmenters.launches import autocast, filled_up, launch
from pipeline.segmenters.sam.mask_decoder import FoldedDecoder, FrameCells

PAD, POINT, BOX_FIRST, BOX_SECOND = -1, 1, 2, 3
ONE_MASK, THREE_MASKS = slice(0, 1), slice(1, 4)
"""Which of SAM's four masks answer a prompt that is clear, and one that may mean parts."""


class EmbeddedFrames(NamedTuple):
    """What SAM keeps of B frames of one size."""

    embeddings: Tensor
    """(B, C, S / 4, S / 4) float32."""
    extent: tuple[float, float]
    """Rows and columns of the S x S masks that the frame fills; beyond is padding."""


class Candidates(NamedTuple):
    """N masks that SAM offers for each of P prompts."""

    logits: Tensor
    """(P, N, S, S) float; a mask is set above 0. 0 where the frame does not reach."""
    quality: Tensor
    """(P, N) float. SAM's own estimate of its IoU."""


class _Question(NamedTuple):
    """What one decoder call asks for each prompt."""

    places: Tensor
    """(P, k, 2) float. x, y as shares of the frame, for the labels that have a place."""
    labels: tuple[int, ...]
    """Of the K tokens; those without a place come last."""
    masks: slice


class SamDecoder:
    """Frames to embeddings, and boxes and points to candidate masks.

    Args:
        sam: segment_anything Sam, frozen, on its device.
        frames_per_launch: frames of one encoder call. None: 1 on the CPU, 4 elsewhere.
        prompts_per_launch: prompts of one decoder call. None: 1 on the CPU, where a second one
            only drives the first from the cache, and 64 elsewhere, which take 3 GB.
        compiled: whether torch.compile makes the encoder faster after a start of a minute.
    """

    def __init__(
        self,
        sam: Any,
        *,
        frames_per_launch: int | None = None,
        prompts_per_launch: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.sam = sam
        self.device: torch.device = sam.device
        self.side: int = sam.image_encoder.img_size
        self.mask_side: int = 4 * sam.prompt_encoder.image_embedding_size[0]
        on_cpu = self.device.type == "cpu"
        self.frames_per_launch = frames_per_launch or (1 if on_cpu else 4)
        self.prompts_per_launch = prompts_per_launch or (1 if on_cpu else 64)
        self._encoder = (
            torch.compile(sam.image_encoder, dynamic=False) if compiled else sam.image_encoder
        )
        self._decoder = FoldedDecoder(sam)

    @torch.inference_mode()
    def embed(self, frames: Tensor) -> EmbeddedFrames:
        """Embed (B, H, W, 3) uint8 RGB frames of one size."""
        (embeddings,) = launch(self._embed, frames, size=self.frames_per_launch)
        height, width = resized_size((frames.shape[1], frames.shape[2]), self.side)
        scale = self.mask_side / self.side
        return EmbeddedFrames(embeddings, (height * scale, width * scale))

    def _embed(self, frames: Tensor) -> tuple[Tensor]:
        """Embeddings of one launch."""
        pixels = self._pixels(frames)
        with autocast(self.device):
            return (self._encoder(pixels).float(),)

    def decode(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor, points: Tensor
    ) -> Candidates:
        """Decode P prompts in float32: once by box and point, once by the point alone.

        Args:
            frames: the embedded frames.
            frame_index: (P,) int64. The frame of each prompt.
            boxes: (P, 4) float. x0, y0, x1, y1 as shares of the frame.
            points: (P, 2) float. x, y as shares of the frame.

        Returns:
            Four candidates per prompt: one for box and point, three for the point alone.
        """
        point = points[:, None]
        both = torch.cat([point, boxes.view(-1, 2, 2)], dim=1)
        questions = [
            _Question(both, (POINT, BOX_FIRST, BOX_SECOND), ONE_MASK),
            _Question(point, (POINT, PAD), THREE_MASKS),
        ]
        return self._decode(frames, frame_index, questions)

    def decode_boxes(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor
    ) -> Candidates:
        """Decode (P, 4) boxes as in ``decode``, without points: one candidate each."""
        question = _Question(boxes.view(-1, 2, 2), (BOX_FIRST, BOX_SECOND), ONE_MASK)
        return self._decode(frames, frame_index, [question])

    def decode_points(
        self, frames: EmbeddedFrames, frame_index: Tensor, points: Tensor
    ) -> Candidates:
        """Decode (P, 2) points as in ``decode``, without boxes: three candidates each."""
        question = _Question(points[:, None], (POINT, PAD), THREE_MASKS)
        return self._decode(frames, frame_index, [question])

    @torch.inference_mode()
    def _decode(
        self, frames: EmbeddedFrames, frame_index: Tensor, questions: Sequence[_Question]
    ) -> Candidates:
        """Answer every question for every prompt; candidates in the order of the questions."""
        num_prompts = len(frame_index)
        num_masks = sum(question.masks.stop - question.masks.start for question in questions)
        device = self.device
        logits = torch.zeros(num_prompts, num_masks, *(self.mask_side,) * 2, device=device)
        quality = torch.zeros(num_prompts, num_masks, device=device)
        for rows, cells in self._launches(frames.embeddings, frame_index):
            answers = [self._answer(frames, cells, rows, question) for question in questions]
            count = len(frame_index[rows])
            for target, parts in zip((logits, quality), zip(*answers, strict=True), strict=True):
                target[rows] = torch.cat(parts, dim=1)[:count]
        return Candidates(logits, quality)

    def _answer(
        self, frames: EmbeddedFrames, cells: FrameCells, rows: slice, question: _Question
    ) -> tuple[Tensor, Tensor]:
        """Logits and qualities of one launch, with what fills it up."""
        height, width = (length * self.side / self.mask_side for length in frames.extent)
        places = filled_up(question.places[rows], self.prompts_per_launch)
        pixels = torch.stack([places[..., 0] * width, places[..., 1] * height], dim=-1)
        tokens = prompt_tokens(self.sam.prompt_encoder, pixels, question.labels)
        rows_shown, columns_shown = (ceil(length / 4) for length in frames.extent)
        return self._decoder.decode(cells, tokens, question.masks, (rows_shown, columns_shown))

    def _launches(
        self, embeddings: Tensor, frame_index: Tensor
    ) -> Iterator[tuple[slice, FrameCells]]:
        """Yield which prompts form a launch, and the cells of their frames."""
        size = self.prompts_per_launch
        if size == 1:
            yield from self._single_launches(embeddings, frame_index.tolist())
            return
        prepare = self._decoder.frame_cells
        cells = FrameCells(*launch(prepare, embeddings, size=self.frames_per_launch))
        for first in range(0, len(frame_index), size):
            rows = slice(first, first + size)
            yield rows, cells.of(filled_up(frame_index[rows], size))

    def _single_launches(
        self, embeddings: Tensor, frame_index: Sequence[int]
    ) -> Iterator[tuple[slice, FrameCells]]:
        """Yield prompts one at a time, frame by frame: the cells of one frame exist at once."""
        by_frame = sorted(range(len(frame_index)), key=frame_index.__getitem__)
        for frame, rows in groupby(by_frame, key=frame_index.__getitem__):
            cells = self._decoder.frame_cells(embeddings[frame : frame + 1])
            for row in rows:
                yield slice(row, row + 1), cells

    def _pixels(self, frames: Tensor) -> Tensor:
        """(B, 3, side, side): long side resized, normalised, padded on the far sides."""
        images = frames.to(self.device).permute(0, 3, 1, 2).float()
        size = resized_size((images.shape[2], images.shape[3]), self.side)
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=True
        )
        padded: Tensor = self.sam.preprocess(images)
        return padded


def resized_size(frame_size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) after the longer side becomes ``side``, rounded as segment_anything does."""
    scale = side / max(frame_size)
    return int(frame_size[0] * scale + 0.5), int(frame_size[1] * scale + 0.5)


def prompt_tokens(prompt_encoder: Any, places: Tensor, labels: Sequence[int]) -> Tensor:
    """Tokens of points and box corners.

    The same numbers as PromptEncoder, without its writes under a boolean mask, each of which makes
    a GPU wait for the CPU.

    Args:
        prompt_encoder: segment_anything PromptEncoder.
        places: (P, k, 2) float. x, y in pixels of the resized frame, measured from its edge:
            the centre of the first pixel is 0.5.
        labels: what each of K tokens is: POINT, BOX_FIRST or BOX_SECOND for the k with a place,
            then PAD for the others.

    Returns:
        (P, K, C) float32.
    """
    position = prompt_encoder.pe_layer.forward_with_coords(places, prompt_encoder.input_image_size)
    kinds = [prompt_encoder.not_a_point_embed.weight] + [
        embedding.weight for embedding in prompt_encoder.point_embeddings
    ]
    own = torch.stack([kinds[label + 1] for label in labels], dim=1)
    missing = len(labels) - places.shape[1]
    return own + functional.pad(position, (0, 0, 0, missing))
