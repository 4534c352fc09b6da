"""CLIP features per cell of a frame: a ViT whose last block attends by likeness of place.

CLIP's last block mixes places so that its class token sees the picture as a whole, and its cells
lose where they are. ClearCLIP (Lan et al. 2024, arXiv:2407.12442) lets queries attend to queries
there and drops the residual and the MLP; the cells then compare with words one by one.

Shape letters: B frames, L tokens (class token first, then gh x gw cells), D width, E embedding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import BackendError

# Fallbacks for models built without a preprocessing record; these are OpenAI's.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MODES = ("clearclip", "sclip", "maskclip", "vanilla")


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
        mode: attention of the last block, one of MODES. ``vanilla`` leaves it as trained.
        short_side: pixels of the frame's shorter side at the encoder's input; 448 gives 28 cells
            with patches of 16.
        mean: of the encoder's input in [0, 1], per channel.
        std: likewise.

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
    ) -> None:
        if mode not in MODES:
            raise BackendError(f"dense mode {mode!r}; known: {', '.join(MODES)}; pass one of these")
        _check_tower(model.visual)
        self.model, self.tokenizer, self.mode, self.short_side = model, tokenizer, mode, short_side
        parameter = model.visual.conv1.weight
        self.device: torch.device = parameter.device
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def encode_frames(self, frames: Tensor) -> DenseFeatures:
        """Encode (B, H, W, 3) uint8 RGB frames of one size."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            pixels = self._pixels(frames)
            tokens, grid = trunk_tokens(self.model.visual, pixels)
            cells = last_block_tokens(self.model.visual, tokens, self.mode)[:, 1:]
            whole = last_block_tokens(self.model.visual, tokens, "vanilla")[:, 0]
        return DenseFeatures(
            cells=functional.normalize(cells.float(), dim=-1).unflatten(1, grid),
            frame=functional.normalize(whole.float(), dim=-1),
        )

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


def last_block_tokens(visual: Any, tokens: Tensor, mode: str) -> Tensor:
    """Run the last block in a mode, then the final norm and projection.

    ``vanilla`` is the block as trained. ``clearclip`` attends query to query, ``sclip`` adds key to
    key (Wang et al. 2023, arXiv:2312.01597), ``maskclip`` takes each value alone (Zhou et al. 2022,
    arXiv:2112.01071); these three drop the residual and the MLP, which is ClearCLIP's finding and
    for the other two a difference from their papers.

    Args:
        visual: open_clip VisionTransformer.
        tokens: (B, L, D) float. Tokens before the last block.
        mode: one of MODES.

    Returns:
        (B, L, E) float, not normalised.
    """
    block = visual.transformer.resblocks[-1]
    mixed = _attend(block.attn, block.ln_1(tokens), mode)
    if mode == "vanilla":
        tokens = tokens + block.ls_1(mixed)
        mixed = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    projected: Tensor = visual.ln_post(mixed) @ visual.proj
    return projected


def _attend(attention: nn.MultiheadAttention, tokens: Tensor, mode: str) -> Tensor:
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in functional.linear(
            tokens, attention.in_proj_weight, attention.in_proj_bias
        ).chunk(3, -1)
    )
    if mode == "vanilla":
        mixed = functional.scaled_dot_product_attention(query, key, value)
    elif mode == "maskclip":
        mixed = value
    else:
        mixed = functional.scaled_dot_product_attention(query, query, value)
        if mode == "sclip":
            mixed = mixed + functional.scaled_dot_product_attention(key, key, value)
    return functional.linear(
        mixed.transpose(1, 2).flatten(2), attention.out_proj.weight, attention.out_proj.bias
    )


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
