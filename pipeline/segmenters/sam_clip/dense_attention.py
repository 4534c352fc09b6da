"""The last block of CLIP's ViT, changed so that cells keep where they are.

The block mixes places so that the class token sees the picture as a whole. For cells that compare
with words one by one, each of these lets like attend to like:

- ``clearclip``: query to query (Lan et al. 2024, arXiv:2407.12442).
- ``naclip``: key to key, and near to near (Hajimiri et al. 2024, arXiv:2404.08181).
- ``sclip``: query to query plus key to key (Wang et al. 2023, arXiv:2312.01597).
- ``maskclip``: each value alone (Zhou et al. 2022, arXiv:2112.01071).
- ``proxy_sam``: by the likeness of another model's features (ProxyCLIP: Lan et al. 2024,
  arXiv:2408.04883), here SAM's, which are at hand.
- ``vanilla``: the block as it was trained.

All but the last drop the residual and the MLP: ClearCLIP's finding, and for sclip and maskclip a
difference from their papers.

Shape letters: B frames, L tokens (class token first, then gh x gw cells), D width, E embedding, C
channels of another model's features.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import BackendError

PROXY = "proxy_sam"
MODES = ("clearclip", "naclip", "sclip", "maskclip", PROXY, "vanilla")

_NEAR_CELLS = 5.0
"""Standard deviation of naclip's Gaussian; its authors'."""
_PROXY_SHIFT, _PROXY_SHARPNESS = 1.2, 3.0
"""ProxyCLIP's beta and gamma."""


def check_mode(mode: str) -> None:
    """Refuse an unknown mode with BackendError."""
    if mode not in MODES:
        raise BackendError(f"dense mode {mode!r}; known: {', '.join(MODES)}; pass one of these")


def last_block_tokens(visual: Any, tokens: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """Run the last block in a mode, then the final norm and projection.

    Args:
        visual: open_clip VisionTransformer.
        tokens: (B, L, D) float. Tokens before the last block.
        grid: rows and columns of the cells.
        mode: one of MODES but PROXY.

    Returns:
        (B, L, E) float, not normalised.
    """
    block = visual.transformer.resblocks[-1]
    query, key, value = (_heads(block.attn, part) for part in _query_key_value(block, tokens))
    mixed = _mixed(query, key, value, grid, mode).transpose(1, 2).flatten(2)
    mixed = functional.linear(mixed, block.attn.out_proj.weight, block.attn.out_proj.bias)
    if mode == "vanilla":
        tokens = tokens + block.ls_1(mixed)
        mixed = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    projected: Tensor = visual.ln_post(mixed) @ visual.proj
    return projected


def proxied_cells(visual: Any, tokens: Tensor, grid: tuple[int, int], proxy: Tensor) -> Tensor:
    """Mix the last block's values by the likeness of another model's features.

    Two differences from ProxyCLIP's code: likeness is compared with its mean over one frame, not
    over the batch; and one product serves all heads, which there repeat the same weights.

    Args:
        visual: open_clip VisionTransformer.
        tokens: (B, L, D) float. Tokens before the last block.
        grid: rows and columns of their cells.
        proxy: (B, C, h, w) float. The features; values are resized to their grid.

    Returns:
        (B, h * w, E) float, not normalised.
    """
    block = visual.transformer.resblocks[-1]
    value = _query_key_value(block, tokens)[2][:, 1:].transpose(1, 2).unflatten(2, grid)
    value = functional.interpolate(
        value.float(), proxy.shape[-2:], mode="bilinear", align_corners=False
    )
    with torch.autocast(tokens.device.type, enabled=False):
        unit = functional.normalize(proxy.float().flatten(2), dim=1)
        alike = unit.transpose(1, 2) @ unit
        # A cell is fully like itself, so that below 1 there is one left to attend to.
        least = (_PROXY_SHIFT * alike.mean(dim=(1, 2), keepdim=True)).clamp(max=0.99)
        alike = _PROXY_SHARPNESS * (alike - least)
        weights = alike.masked_fill(alike < 0, -torch.inf).softmax(dim=-1)
        mixed = weights @ value.flatten(2).transpose(1, 2)
    out = block.attn.out_proj
    projected: Tensor = visual.ln_post(functional.linear(mixed, out.weight, out.bias)) @ visual.proj
    return projected


def _query_key_value(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attention = block.attn
    parts = functional.linear(
        block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias
    ).chunk(3, -1)
    query, key, value = parts
    return query, key, value


def _heads(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _mixed(query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    attend = functional.scaled_dot_product_attention
    if mode == "vanilla":
        return attend(query, key, value)
    if mode == "maskclip":
        return value
    if mode == "naclip":
        return attend(key, key, value, attn_mask=_nearness(grid, key.device).to(key.dtype))
    mixed = attend(query, query, value)
    return mixed + attend(key, key, value) if mode == "sclip" else mixed


def _nearness(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(L, L) float32: a Gaussian of the distance between cells; 0 to and from the class token."""
    y, x = (torch.arange(length, device=device, dtype=torch.float32) for length in grid)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    squares = (places[:, None] - places[None]).square().sum(dim=-1)
    return functional.pad((-squares / (2 * _NEAR_CELLS**2)).exp(), (1, 0, 1, 0))
