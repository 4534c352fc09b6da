"""Layers that perception and attention share: attention, feed-forward, fixed positions.

Shape letters: B clips or frames (whatever is independent), Q queries, S memory tokens, H heads,
L grid cells, D features, A features of one head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig

KEPT_POSITIONS = 64
"""Frames whose encodings are kept; those of a longer clip are made when it comes."""


class Attention(nn.Module):
    """Multi-head attention of B x Q query tokens to B x S memory tokens.

    Equal to the textbook form (Vaswani et al. 2017, arXiv:1706.03762), computed in the cheaper of
    two orders: where queries are few, each head's key and value matrices are applied to the
    queries and to the averaged memory, not to every memory token. Keys have no bias (softmax
    cancels it) and weights no dropout (Paper: our choice; residual branches have it).
    """

    def __init__(self, dim: int, heads: int, *, zero_output: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if zero_output:
            nn.init.zeros_(self.output.weight)

    def forward(self, query: Tensor, memory: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, D) float, or (1, Q, D) for the same queries in every batch row.
            memory: (B, S, D) float.
            allowed: (Q, S) bool. What a query may attend to, at least one token each; None = all.

        Returns:
            (B, Q, D) float.
        """
        Q, S, D = query.shape[1], memory.shape[1], memory.shape[2]
        folded_cost = Q * (D + self.heads * S)
        plain_cost = S * (D + Q)
        attend = self._folded if folded_cost < plain_cost else self._plain
        return self.output(attend(query, memory, allowed))

    def _plain(self, query: Tensor, memory: Tensor, allowed: Tensor | None) -> Tensor:
        query_BHQA = self._split(self.query(query)).expand(len(memory), -1, -1, -1)
        key_BHSA, value_BHSA = self._split(self.key(memory)), self._split(self.value(memory))
        heads_BHQA = functional.scaled_dot_product_attention(
            query_BHQA, key_BHSA, value_BHSA, attn_mask=allowed
        )
        return heads_BHQA.transpose(1, 2).flatten(2)

    def _folded(self, query: Tensor, memory: Tensor, allowed: Tensor | None) -> Tensor:
        D = memory.shape[2]
        Q, A = query.shape[1], D // self.heads
        query_BQHA = self.query(query).unflatten(2, (self.heads, A)) * A**-0.5
        # q . (K m) = (K' q) . m: D x D work per query, not per memory token.
        key_HAD = self.key.weight.view(self.heads, A, D)
        lifted = torch.einsum("bqha,had->bhqd", query_BQHA, key_HAD).flatten(1, 2)
        scores_BHQS = torch.matmul(lifted, memory.transpose(1, 2)).unflatten(1, (self.heads, Q))
        if allowed is not None:
            scores_BHQS = scores_BHQS.masked_fill(~allowed, -math.inf)
        mean_BHQD = torch.matmul(scores_BHQS.softmax(dim=-1).flatten(1, 2), memory)
        value_HAD = self.value.weight.view(self.heads, A, D)
        mean_BHQD = mean_BHQD.unflatten(1, (self.heads, Q))
        return torch.einsum("bhqd,had->bqha", mean_BHQD, value_HAD).flatten(2) + self.value.bias

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Pre-normalised D -> 2D -> D with GELU. Paper: our choice."""

    def __init__(self, dim: int, dropout: float, *, zero_output: bool = False) -> None:
        output = nn.Linear(2 * dim, dim)
        if zero_output:
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), output, nn.Dropout(dropout)
        )


def sine_positions(length: int, dim: int) -> Tensor:
    """Fixed encodings of positions 0 .. length - 1 (Vaswani et al. 2017, Sec. 3.5): (length, dim).

    Sines first, then cosines; any length, so the number of frames is not part of the network.
    """
    rates = torch.exp(torch.arange(dim // 2) * (-math.log(10_000.0) / (dim // 2)))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SinePositions(nn.Module):
    """The first rows of `sine_positions`, kept on the module's device; no part of a checkpoint."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", sine_positions(KEPT_POSITIONS, dim), persistent=False)
        self.table: Tensor

    def forward(self, length: int) -> Tensor:
        """Encode positions 0 .. length - 1: (length, dim) float."""
        if length > len(self.table):
            return sine_positions(length, self.table.shape[1]).to(self.table)
        return self.table[:length]


class ClipDropout(nn.Dropout1d):
    """Drops channels of a clip, in training: one draw for all its frames and cells."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, T, L, D) to the same shape."""
        if not self.training or self.p == 0:
            return tokens
        kept = super().forward(tokens.new_ones(len(tokens), tokens.shape[-1], 1))
        return tokens * kept.view(len(tokens), 1, 1, -1)


def grid_positions(config: NetworkConfig) -> Tensor:
    """(L, D) encodings of row-major grid cells: half the features for the row, half the column."""
    side = config.side
    if config.positions == "none":
        return torch.zeros(side * side, config.dim)
    line = sine_positions(side, config.dim // 2)
    rows = line.unsqueeze(1).expand(side, side, -1)
    columns = line.unsqueeze(0).expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
