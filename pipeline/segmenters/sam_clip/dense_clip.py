"""CLIP features per cell of a frame, and of texts in the same space.

Shape letters: B frames, L tokens (class token first, then gh x gw cells), D width, E embedding, C
channels of another model's features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import BackendError
from pipeline.segmenters.launches import autocast, launch
from pipeline.segmenters.sam_clip.dense_attention import (
    PROXY,
    check_mode,
    last_block_tokens,
    proxied_cells,
)

# Fallbacks for models built without a preprocessing record; these are OpenAI's.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class DenseFeatures(NamedTuple):
    """Features of B frames, of unit length."""

    cells: Tensor
    """(B, gh, gw, E). The cells divide the whole frame evenly."""
    frame: Tensor
    """(B, E). The class token, after the block as it was trained."""


class DenseClip:
    """open_clip ViT as a map from frames to cell features, and from texts to the same space.

    Args:
        model: open_clip CLIP with a VisionTransformer that pools its class token.
        tokenizer: texts to (n, 77) tokens.
        mode: attention of the last block, one of MODES (dense_attention says what they do).
        short_side: pixels of the frame's shorter side at the encoder's input; 448 gives 28 cells
            with patches of 16.
        mean: of the encoder's input in [0, 1], per channel.
        std: likewise.
        frames_per_launch: frames of one call. None: 1 on the CPU, 16 elsewhere.

    Raises:
        BackendError: the vision tower is not such a ViT, or the mode is unknown.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        mode: str = "clearclip",
        short_side: int = 448,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        frames_per_launch: int | None = None,
    ) -> None:
        check_mode(mode)
        _check_tower(model.visual)
        self.model, self.tokenizer, self.mode, self.short_side = model, tokenizer, mode, short_side
        parameter = model.visual.conv1.weight
        self.device: torch.device = parameter.device
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)
        self._frames_per_launch = frames_per_launch or (1 if self.device.type == "cpu" else 16)

    @property
    def needs_proxy(self) -> bool:
        """Whether cells are to be likened by another model's features."""
        return self.mode == PROXY

    @torch.inference_mode()
    def encode_frames(self, frames: Tensor, proxy: Tensor | None = None) -> DenseFeatures:
        """Encode frames of one size.

        Args:
            frames: (B, H, W, 3) uint8 RGB.
            proxy: (B, C, gh, gw) float. Features of another model over the same frames, where the
                mode needs them; their cells then become those of the result.

        Returns:
            Features of unit length.
        """
        rows = (frames,) if proxy is None else (frames, proxy)
        return DenseFeatures(*launch(self._encode, *rows, size=self._frames_per_launch))

    def _encode(self, frames: Tensor, proxy: Tensor | None = None) -> tuple[Tensor, Tensor]:
        visual = self.model.visual
        with autocast(self.device):
            tokens, grid = trunk_tokens(visual, self._pixels(frames))
            whole = last_block_tokens(visual, tokens, grid, "vanilla")[:, 0]
            if proxy is None:
                cells = last_block_tokens(visual, tokens, grid, self.mode)[:, 1:]
            else:
                cells = proxied_cells(visual, tokens, grid, proxy)
                grid = (proxy.shape[2], proxy.shape[3])
        unit = functional.normalize(cells.float(), dim=-1).unflatten(1, grid)
        return unit, functional.normalize(whole.float(), dim=-1)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode n texts to (n, E) features of unit length."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        return functional.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def _pixels(self, frames: Tensor) -> Tensor:
        images = frames.to(self.device).permute(0, 3, 1, 2).float() / 255
        patch = self.model.visual.conv1.kernel_size
        size = input_size((images.shape[2], images.shape[3]), self.short_side, patch)
        images = functional.interpolate(
            images, size, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
        return (images - self._mean) / self._std


def input_size(
    frame_size: tuple[int, int], short_side: int, patch: tuple[int, int]
) -> tuple[int, int]:
    """Size near ``short_side`` with the frame's aspect, both sides whole numbers of patches."""
    scale = short_side / min(frame_size)
    height, width = (
        max(1, round(side * scale / step)) * step
        for side, step in zip(frame_size, patch, strict=True)
    )
    return height, width


def trunk_tokens(visual: Any, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Tokens before the last block, at any input size.

    Args:
        visual: open_clip VisionTransformer.
        pixels: (B, 3, h, w) float, normalised; h and w are whole numbers of patches.

    Returns:
        (B, L, D) tokens, and the grid (gh, gw) of their cells.
    """
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    cells = patches.flatten(2).transpose(1, 2)
    first = visual.class_embedding.to(cells.dtype).expand(len(cells), 1, -1)
    position = _resized_positions(visual.positional_embedding, visual.grid_size, grid)
    tokens = visual.ln_pre(torch.cat([first, cells], dim=1) + position.to(cells.dtype))
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    return tokens, grid


def _resized_positions(
    positions: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """(1 + gh * gw, D) position embeddings, those of cells interpolated to another grid."""
    if tuple(trained_grid) == grid:
        return positions
    first, cells = positions[:1], positions[1:]
    cells_DHW = cells.unflatten(0, tuple(trained_grid)).permute(2, 0, 1)
    resized = functional.interpolate(
        cells_DHW[None].float(), grid, mode="bicubic", align_corners=False, antialias=True
    )
    return torch.cat([first, resized[0].flatten(1).T.to(first.dtype)])


def _check_tower(visual: Any) -> None:
    transformer = getattr(visual, "transformer", None)
    blocks = getattr(transformer, "resblocks", None)
    suits = (
        blocks is not None
        and hasattr(visual, "class_embedding")
        and isinstance(getattr(blocks[-1], "attn", None), nn.MultiheadAttention)
        and blocks[-1].attn.batch_first
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "pool_type", "tok") == "tok"
        and not getattr(visual, "final_ln_after_pool", False)
        and visual.proj is not None
    )
    if not suits:
        raise BackendError(
            f"CLIP vision tower {type(visual).__name__} has no plain ViT with a class token; dense "
            "features need one; give a model such as ViT-B-16-quickgelu"
        )
