"""SAM's image attention by scaled_dot_product_attention: the same numbers, less memory and time.

segment_anything writes out the matrix of all pairs of cells, adds two relative-position terms to
it and takes its softmax, pass after pass: 0.8 GB a frame and global block in float32.

Shape letters: B frames or windows, H x W cells, L = H W, M heads, c channels of a head, R rows of
cells in one call.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CPU_ROWS_PER_CALL = 1
"""Rows of query cells of a global block that share a call on the CPU, where the bias of a row then
stays in the cache: 13 MB for ViT-B."""


def use_fused_attention(sam: Any) -> None:
    """Replace every attention of a SAM's image encoder, in place.

    Call it when the model is on its device and its input has its final size.

    Args:
        sam: segment_anything Sam.
    """
    encoder = sam.image_encoder
    grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    row_by_row = CPU_ROWS_PER_CALL if sam.device.type == "cpu" else None
    for block in encoder.blocks:
        side = block.window_size or grid
        rows = None if block.window_size else row_by_row
        block.attn = FusedAttention(block.attn, side, rows_per_call=rows)


class FusedAttention(nn.Module):
    """Stands in for segment_anything's ``Attention`` with relative positions.

    One CPU thread took, for the global block of ViT-B with 64 x 64 cells, 2.2 s as published, 1.5 s
    with the bias as one mask and 1.1 s row by row. Appending the bias to queries and keys, which
    needs no mask, took 1.7 s, since it triples the width of a head.

    Args:
        attention: segment_anything ``Attention``; its weights are shared, not copied.
        side: its input is ``side`` x ``side`` cells.
        rows_per_call: rows of query cells whose bias exists at once; None: all.
    """

    row_terms: Tensor
    column_terms: Tensor

    def __init__(self, attention: Any, side: int, *, rows_per_call: int | None = None) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads: int = attention.num_heads
        self.rows_per_call = rows_per_call or side
        for name, table in (("row", attention.rel_pos_h), ("column", attention.rel_pos_w)):
            self.register_buffer(f"{name}_terms", relative_terms(table, side), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Attend among the cells of each (B, H, W, D) picture or window."""
        size = cells.shape[1:3]
        query, key, value = (
            part.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(cells).chunk(3, dim=-1)
        )
        parts = [
            functional.scaled_dot_product_attention(rows, key, value, attn_mask=bias)
            for rows, bias in self._with_bias(query.unflatten(2, size))
        ]
        mixed = torch.cat(parts, dim=2).transpose(1, 2).flatten(2)
        projected: Tensor = self.proj(mixed.unflatten(1, size))
        return projected

    def _with_bias(self, query_BMHWc: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield queries (B, M, R W, c) and what their products with all keys gain (.., R W, L)."""
        count = self.rows_per_call
        for rows, terms in zip(
            query_BMHWc.split(count, dim=2), self.row_terms.split(count), strict=True
        ):
            by_row = torch.einsum("bmhwc,hkc->bmhwk", rows, terms)
            by_column = torch.einsum("bmhwc,wkc->bmhwk", rows, self.column_terms)
            bias = by_row[..., :, None] + by_column[..., None, :]
            yield rows.flatten(2, 3), bias.flatten(-2).flatten(2, 3)


def relative_terms(table: Tensor, side: int) -> Tensor:
    """Spread a table over distances to one over pairs, resized linearly as SAM resizes it.

    Args:
        table: (distances, c) float. From -(n - 1) to n - 1 for the n cells it was trained with.
        side: cells along the axis.

    Returns:
        (side, side, c) float; [i, j] is what a query at i gains from a key at j, before the product
        with the query.
    """
    distances = 2 * side - 1
    if len(table) != distances:
        table = functional.interpolate(table.T[None], distances, mode="linear")[0].T
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]
