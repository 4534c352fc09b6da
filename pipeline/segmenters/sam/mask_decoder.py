"""SAM's mask decoder with folded matrices: its numbers at half its work.

The published decoder projects the L = 4096 cells of a frame for every prompt, though a prompt has
K <= 8 tokens. Here a projection of cells is applied to the tokens that meet it, since
(q Wq) (x Wk)^T = (q Wq Wk^T) x^T, and what the first layer projects, the same for all prompts of a
frame, is kept per frame. 1.7 GFLOP a prompt in place of 3.6, and equal up to rounding.

Two offsets need no work: what a key's bias adds to a query's products is the same for all keys and
leaves a softmax over them; and shares that sum to one carry a bias of the values unchanged.

Shape letters: B frames, P prompts, K tokens, L = h x w cells, C channels, M heads, c channels of a
head, N masks, S = 4 h side of a mask.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CPU_ROWS_PER_STEP = 4
"""Rows of cells that the CPU carries through a chain of steps at once, within its cache."""


class FrameCells(NamedTuple):
    """What the decoder needs of B frames whatever the prompt."""

    cells: Tensor
    """(B, L, C)."""
    keys: Tensor
    """(B, M, c, L). What tokens of the first layer look for."""
    values: Tensor
    """(B, M, L, c). What they find."""
    queries: Tensor
    """(B, M, c, L). What cells of the first layer look for."""

    def of(self, frame_index: Tensor) -> "FrameCells":
        """Bring a copy to each of (P,) prompts."""
        return FrameCells(*(part.index_select(0, frame_index) for part in self))


class FoldedDecoder:
    """The mask decoder of a segment_anything Sam, whose weights it shares.

    Args:
        sam: on its device, its input of the final size.
    """

    def __init__(self, sam: Any) -> None:
        decoder, prompts = sam.mask_decoder, sam.prompt_encoder
        self._decoder = decoder
        self._grid: tuple[int, int] = prompts.image_embedding_size
        self._position_LC = prompts.get_dense_pe()[0].flatten(1).T.contiguous()
        self._no_mask = prompts.no_mask_embed.weight
        self._own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        up = decoder.output_upscaling
        self._norm = up[1]
        self._ups = [_as_matrix(convolution) for convolution in (up[0], up[3])]
        on_cpu = self._position_LC.device.type == "cpu"
        self._rows_per_step = CPU_ROWS_PER_STEP if on_cpu else self._grid[0]

    def frame_cells(self, embeddings: Tensor) -> FrameCells:
        """Prepare (B, C, h, w) embeddings of frames."""
        cells = embeddings.flatten(2).transpose(1, 2).contiguous() + self._no_mask
        placed = cells + self._position_LC
        layer = self._decoder.transformer.layers[0]
        looking, looked_at = layer.cross_attn_image_to_token, layer.cross_attn_token_to_image
        return FrameCells(
            cells,
            _heads(looked_at.k_proj(placed), looked_at).transpose(2, 3).contiguous(),
            _heads(looked_at.v_proj(cells), looked_at).contiguous(),
            _heads(looking.q_proj(placed), looking).transpose(2, 3).contiguous(),
        )

    def decode(
        self, frames: FrameCells, tokens: Tensor, masks: slice, shown: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts.

        Args:
            frames: of each prompt's own frame; P of them.
            tokens: (P, K, C) float32 of the prompts.
            masks: which of the decoder's masks; the first answers unambiguous prompts, the other
                three ambiguous ones.
            shown: rows and columns of cells that the frame fills.

        Returns:
            (P, N, S, S) logits, 0 in cells beyond ``shown``, and (P, N) qualities.
        """
        makers = self._decoder.output_hypernetworks_mlps
        chosen = range(len(makers))[masks]
        answers, cells = self._transform(frames, tokens, [0, *(1 + mask for mask in chosen)])
        weights = [makers[mask](answers[:, i]) for i, mask in enumerate(chosen, start=1)]
        quality = self._decoder.iou_prediction_head(answers[:, 0])[:, masks]
        logits = self._masks(cells.unflatten(1, self._grid), torch.stack(weights, dim=1), shown)
        return logits, quality

    def _transform(
        self, frames: FrameCells, tokens: Tensor, asked: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(P, A, C) answers of A of SAM's own tokens, and (P, L, C) cells."""
        transformer = self._decoder.transformer
        start = torch.cat([self._own_tokens.expand(len(tokens), -1, -1), tokens], dim=1)
        queries, cells, placed = self._first_layer(transformer.layers[0], start, frames)
        for layer in transformer.layers[1:]:
            own = queries + start
            queries = layer.norm1(queries + layer.self_attn(q=own, k=own, v=queries))
            found = _find(layer.cross_attn_token_to_image, queries + start, cells, placed)
            queries = _digest(layer, queries + found)
            products = _products(layer.cross_attn_image_to_token, queries + start, placed)
            cells, placed = self._answer(layer, cells, queries, products)
        # Nothing is asked of the other tokens any more.
        queries, start = (
            torch.stack([rows[:, i] for i in asked], dim=1) for rows in (queries, start)
        )
        found = _find(transformer.final_attn_token_to_image, queries + start, cells, placed)
        return transformer.norm_final_attn(queries + found), cells

    def _first_layer(
        self, layer: Any, start: Tensor, frames: FrameCells
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(P, K + 5, C) queries and (P, L, C) cells, these also with their places."""
        queries = layer.norm1(layer.self_attn(q=start, k=start, v=start))
        attention = layer.cross_attn_token_to_image
        products = _scaled(_heads(attention.q_proj(queries + start), attention)) @ frames.keys
        found = _join(attention, products.softmax(dim=-1) @ frames.values)
        queries = _digest(layer, queries + found)
        attention = layer.cross_attn_image_to_token
        products = _scaled(_heads(attention.k_proj(queries + start), attention)) @ frames.queries
        return queries, *self._answer(layer, frames.cells, queries, products)

    def _answer(
        self, layer: Any, cells: Tensor, queries: Tensor, products: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(P, L, C) cells after they took from the tokens what they look for; and with places."""
        attention = layer.cross_attn_image_to_token
        output = attention.out_proj.weight.unflatten(1, (attention.num_heads, -1)).permute(1, 2, 0)
        values = _heads(attention.v_proj(queries), attention) @ output
        # The shares of each of the M heads sum to one, so each brings its part of the bias.
        values = (values + attention.out_proj.bias / attention.num_heads).flatten(1, 2)
        answered, placed = torch.empty_like(cells), torch.empty_like(cells)
        step = self._rows_per_step * self._grid[1]
        for part in (slice(i, i + step) for i in range(0, cells.shape[1], step)):
            shares = products[..., part].softmax(dim=2).flatten(1, 2)
            found = torch.bmm(shares.transpose(1, 2), values).add_(cells[:, part])
            normed = layer.norm4(found)
            answered[:, part] = normed
            torch.add(normed, self._position_LC[part], out=placed[:, part])
        return answered, placed

    def _masks(self, cells: Tensor, weights: Tensor, shown: tuple[int, int]) -> Tensor:
        """(P, N, S, S) logits of (P, h, w, C) cells under (P, N, C / 8) weights per mask."""
        rows, columns = shown
        logits = weights.new_zeros(*weights.shape[:2], *(4 * side for side in self._grid))
        for top in range(0, rows, self._rows_per_step):
            bottom = min(top + self._rows_per_step, rows)
            fine = self._upscaled(cells[:, top:bottom, :columns])
            picture = (weights @ fine.transpose(1, 2)).unflatten(
                2, (bottom - top, columns, 2, 2, 2, 2)
            )
            logits[:, :, 4 * top : 4 * bottom, : 4 * columns] = (
                picture.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5, 7).flatten(2, 4)
            )
        return logits

    def _upscaled(self, cells: Tensor) -> Tensor:
        """(P, rows w 16, C / 8): each cell twice split into its quarters, cell by cell."""
        (first, first_bias), (second, second_bias) = self._ups
        halves = torch.addmm(first_bias, cells.reshape(-1, len(first)), first)
        norm = self._norm
        halves = functional.layer_norm(
            halves.view(-1, len(second)), (len(second),), norm.weight, norm.bias, norm.eps
        )
        quarters = torch.addmm(second_bias, functional.gelu(halves), second)
        return functional.gelu(quarters).view(len(cells), -1, second.shape[1] // 4)


def _find(attention: Any, queries: Tensor, cells: Tensor, placed: Tensor) -> Tensor:
    """What tokens find in (P, L, C) cells, looked for among the cells with their places."""
    rows = _scaled(_heads(attention.q_proj(queries), attention))
    folded = (rows @ _by_head(attention.k_proj.weight, attention)).flatten(1, 2)
    shares = (folded @ placed.transpose(1, 2)).softmax(dim=-1)
    found = (shares @ cells).unflatten(1, (attention.num_heads, -1))
    values = found @ _by_head(attention.v_proj.weight, attention).transpose(1, 2)
    return _join(attention, values + attention.v_proj.bias.view(attention.num_heads, 1, -1))


def _products(attention: Any, queries: Tensor, placed: Tensor) -> Tensor:
    """(P, M, K, L) products of tokens with (P, L, C) cells with their places."""
    rows = _scaled(_heads(attention.k_proj(queries), attention))
    folded = rows @ _by_head(attention.q_proj.weight, attention)
    offset = rows @ attention.q_proj.bias.view(attention.num_heads, -1, 1)
    products = torch.baddbmm(offset.flatten(1, 2), folded.flatten(1, 2), placed.transpose(1, 2))
    return products.unflatten(1, (attention.num_heads, -1))


def _digest(layer: Any, queries: Tensor) -> Tensor:
    queries = layer.norm2(queries)
    digested: Tensor = layer.norm3(queries + layer.mlp(queries))
    return digested


def _heads(rows: Tensor, attention: Any) -> Tensor:
    """(P, n, M c) to (P, M, n, c)."""
    return rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _by_head(weight: Tensor, attention: Any) -> Tensor:
    """(M c, C) weight of a projection to (M, c, C)."""
    return weight.unflatten(0, (attention.num_heads, -1))


def _join(attention: Any, rows: Tensor) -> Tensor:
    """(P, M, n, c) to (P, n, C) through the output projection."""
    joined: Tensor = attention.out_proj(rows.transpose(1, 2).flatten(2))
    return joined


def _scaled(rows: Tensor) -> Tensor:
    return rows * rows.shape[-1] ** -0.5


def _as_matrix(convolution: Any) -> tuple[Tensor, Tensor]:
    """A transposed 2 x 2 convolution of stride 2 as (in, 4 out) weight and (4 out,) bias."""
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
    return weight, convolution.bias.repeat(4)
