"""SAM (Kirillov et al. 2023, arXiv:2304.02643) for prompts that belong to many frames.

segment_anything's own decoder takes prompts of one frame per call. Here its public parts are called
so that every prompt brings its frame's embedding along; the numbers are those of SamPredictor.

Shape letters: B frames, P prompts, K tokens of a prompt, C channels, S side of the low-resolution
masks, 4 times that of the embedding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PAD, POINT, BOX_FIRST, BOX_SECOND = -1, 1, 2, 3


class EmbeddedFrames(NamedTuple):
    """What SAM keeps of B frames of one size."""

    embeddings: Tensor
    """(B, C, S / 4, S / 4) float32."""
    extent: tuple[float, float]
    """Rows and columns of the S x S masks that the frame fills; beyond is padding."""


class Candidates(NamedTuple):
    """Masks that SAM offers for P prompts: one for box and point, three for the point alone."""

    logits: Tensor
    """(P, 4, S, S) float; a mask is set above 0."""
    quality: Tensor
    """(P, 4) float. SAM's own estimate of its IoU."""


class SamDecoder:
    """Frames to embeddings, and boxes with points to candidate masks.

    Args:
        sam: segment_anything Sam.
        frames_per_launch: frames of one encoder call. None: 1 on the CPU, where the attention of
            one 1024 x 1024 frame takes 0.8 GB per global block, and 4 elsewhere.
    """

    def __init__(self, sam: Any, *, frames_per_launch: int | None = None) -> None:
        self.sam = sam
        self.device: torch.device = sam.device
        self.side: int = sam.image_encoder.img_size
        self.mask_side: int = 4 * sam.prompt_encoder.image_embedding_size[0]
        default = 1 if self.device.type == "cpu" else 4
        self._frames_per_launch = frames_per_launch or default

    @torch.inference_mode()
    def embed(self, frames: Tensor) -> EmbeddedFrames:
        """Embed (B, H, W, 3) uint8 RGB frames of one size."""
        embeddings = []
        for part in frames.split(self._frames_per_launch):
            pixels = self._pixels(part)
            bf16 = self.device.type == "cuda"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                embeddings.append(self.sam.image_encoder(pixels).float())
        height, width = resized_size((frames.shape[1], frames.shape[2]), self.side)
        scale = self.mask_side / self.side
        return EmbeddedFrames(torch.cat(embeddings), (height * scale, width * scale))

    @torch.inference_mode()
    def decode(
        self, frames: EmbeddedFrames, frame_index: Tensor, boxes: Tensor, points: Tensor
    ) -> Candidates:
        """Decode P prompts, in float32: once by box and point, once by the point alone.

        Args:
            frames: the embedded frames.
            frame_index: (P,) int64. The frame of each prompt.
            boxes: (P, 4) float. x0, y0, x1, y1 as shares of the frame.
            points: (P, 2) float. x, y as shares of the frame.

        Returns:
            Four candidates per prompt.
        """
        scale = torch.tensor(frames.extent[::-1], device=self.device) * self.side / self.mask_side
        corners = boxes.view(-1, 2, 2) * scale
        point = points[:, None] * scale
        both = self._prompt_tokens(torch.cat([point, corners], 1), (POINT, BOX_FIRST, BOX_SECOND))
        alone = self._prompt_tokens(
            torch.cat([point, torch.zeros_like(point)], dim=1), (POINT, PAD)
        )
        by_box = decode_prompts(self.sam, frames.embeddings, frame_index, both)
        by_point = decode_prompts(self.sam, frames.embeddings, frame_index, alone)
        return Candidates(
            logits=torch.cat([by_box[0][:, :1], by_point[0][:, 1:]], dim=1),
            quality=torch.cat([by_box[1][:, :1], by_point[1][:, 1:]], dim=1),
        )

    def _pixels(self, frames: Tensor) -> Tensor:
        """(B, 3, side, side): long side resized, normalised, padded on the far sides."""
        images = frames.to(self.device).permute(0, 3, 1, 2).float()
        size = resized_size((images.shape[2], images.shape[3]), self.side)
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=True
        )
        padded: Tensor = self.sam.preprocess(images)
        return padded

    def _prompt_tokens(self, coordinates: Tensor, labels: tuple[int, ...]) -> Tensor:
        """(P, K, C) tokens of coordinates in pixels of the resized frame, 0 at its very edge."""
        labels_PK = torch.tensor(labels, device=self.device).expand(len(coordinates), -1)
        return prompt_tokens(self.sam.prompt_encoder, coordinates, labels_PK)


def resized_size(frame_size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) after the longer side becomes ``side``, rounded as segment_anything does."""
    scale = side / max(frame_size)
    return int(frame_size[0] * scale + 0.5), int(frame_size[1] * scale + 0.5)


def prompt_tokens(prompt_encoder: Any, coordinates: Tensor, labels: Tensor) -> Tensor:
    """Tokens of points and box corners by table look-up.

    The same numbers as PromptEncoder, without its writes under a boolean mask, each of which makes
    a GPU wait for the CPU.

    Args:
        prompt_encoder: segment_anything PromptEncoder.
        coordinates: (P, K, 2) float. x, y in pixels of the resized frame, measured from its edge:
            the centre of the first pixel is 0.5.
        labels: (P, K) int64. PAD, POINT, BOX_FIRST or BOX_SECOND.

    Returns:
        (P, K, C) float32.
    """
    table = torch.cat(
        [prompt_encoder.not_a_point_embed.weight]
        + [embedding.weight for embedding in prompt_encoder.point_embeddings]
    )
    position = prompt_encoder.pe_layer.forward_with_coords(
        coordinates, prompt_encoder.input_image_size
    )
    return torch.where((labels == PAD)[..., None], 0.0, position) + table[labels + 1]


def decode_prompts(
    sam: Any, embeddings: Tensor, frame_index: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Run SAM's mask decoder once for prompts of mixed frames.

    Args:
        sam: segment_anything Sam.
        embeddings: (B, C, S / 4, S / 4) float32.
        frame_index: (P,) int64. The frame of each prompt.
        tokens: (P, K, C) float32.

    Returns:
        (P, 4, S, S) logits and (P, 4) qualities; the first mask answers unambiguous prompts, the
        other three ambiguous ones.
    """
    decoder, prompts = sam.mask_decoder, sam.prompt_encoder
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    queries = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1)
    no_mask = prompts.no_mask_embed.weight[..., None, None]
    source = embeddings.index_select(0, frame_index) + no_mask
    position = prompts.get_dense_pe().expand(len(tokens), -1, -1, -1)
    answers, source = decoder.transformer(source, position, queries)
    picture = source.transpose(1, 2).unflatten(2, embeddings.shape[-2:])
    upscaled = decoder.output_upscaling(picture)
    weights = torch.stack(
        [mlp(answers[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps, start=1)],
        dim=1,
    )
    logits = torch.einsum("pmc,pchw->pmhw", weights, upscaled)
    return logits, decoder.iou_prediction_head(answers[:, 0])
