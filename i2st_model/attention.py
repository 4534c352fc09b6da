"""Joint image-instance attention over space and time, and the global fusion token.

Shape letters: B clips or frames (whatever is independent), T frames, I instances, L grid cells,
M global tokens, Q queries, S memory tokens, H heads, D features, A features of one head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig


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


class SpatialAttention(nn.Module):
    """Spatial sub-module: image token, instances and grid cells of one frame attend jointly.

    Paper: a pair of spatial and temporal sub-modules joining image and instances is stated; one
    joint sequence, pre-normalisation and the zero-initialised output are our choice. Positions
    and token types enter the attention's input, not the residual stream, so that at step 0 the
    sub-module is the identity.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.cross = config.attention_scope == "cross"
        self.norm = nn.LayerNorm(config.dim)
        self.types = nn.Parameter(torch.randn(3, config.dim) * 0.02)
        self.attention = Attention(config.dim, config.heads, zero_output=True)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=True)
        self.register_buffer("positions", grid_positions(config), persistent=False)
        self.positions: Tensor

    def forward(
        self, frame: Tensor, grid: Tensor, *, update_grid: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Attend within each frame.

        Args:
            frame: (B, 1 + I, D) float. The image token, then the instances.
            grid: (B, L, D) float.
            update_grid: False leaves the grid cells as they are, which changes nothing for
                ``frame``: right where nothing reads the grid afterwards, and about twice as fast.

        Returns:
            (B, 1 + I, D) and (B, L, D) float.
        """
        num_frame, num_grid = frame.shape[1], grid.shape[1]
        instances = self.types[1].expand(num_frame - 1, -1)
        offset = torch.cat([self.types[:1], instances, self.types[2] + self.positions])
        memory = self.norm(torch.cat([frame, grid], dim=1)) + offset
        tokens = torch.cat([frame, grid], dim=1) if update_grid else frame
        allowed = None
        if self.cross:
            image = _is_image(1, num_frame - 1, num_grid, frame.device)
            allowed = image[: tokens.shape[1], None] != image
        tokens = tokens + self.dropout(
            self.attention(memory[:, : tokens.shape[1]], memory, allowed)
        )
        tokens = tokens + self.feed_forward(tokens)
        return tokens[:, :num_frame], tokens[:, num_frame:] if update_grid else grid


class TemporalAttention(nn.Module):
    """Temporal sub-module: image and instance tokens of all frames of a clip attend jointly.

    Paper: as for `SpatialAttention`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.cross = config.attention_scope == "cross"
        self.sine = config.positions == "sine"
        self.norm = nn.LayerNorm(config.dim)
        self.types = nn.Parameter(torch.randn(2, config.dim) * 0.02)
        self.attention = Attention(config.dim, config.heads, zero_output=True)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, T, 1 + I, D) to the same shape; the image token comes first in each frame."""
        T, num_frame, D = frames.shape[1:]
        offset = torch.cat([self.types[:1], self.types[1:].expand(num_frame - 1, -1)])
        if self.sine:
            offset = offset + sine_positions(T, D).to(frames).unsqueeze(1)
        memory = (self.norm(frames) + offset).flatten(1, 2)
        allowed = None
        if self.cross:
            image = _is_image(1, num_frame - 1, 0, frames.device).repeat(T)
            allowed = image[:, None] != image
        tokens = frames.flatten(1, 2)
        tokens = tokens + self.dropout(self.attention(memory, memory, allowed))
        return (tokens + self.feed_forward(tokens)).unflatten(1, (T, num_frame))


class JointAttention(nn.Module):
    """Spatial-temporal pairs in the configured number, order and scope."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        pairs = range(config.spatial_temporal_pairs)
        self.temporal_first = config.attention_order == "temporal_first"
        self.spatial = nn.ModuleList(SpatialAttention(config) for _ in pairs)
        self.temporal = nn.ModuleList(TemporalAttention(config) for _ in pairs)

    def forward(self, frames: Tensor, grid: Tensor) -> Tensor:
        """Refine image and instance tokens.

        Args:
            frames: (B, T, 1 + I, D) float. Per frame the image token, then the instances.
            grid: (B, T, L, D) float.

        Returns:
            (B, T, 1 + I, D) float.
        """
        B, T = frames.shape[:2]
        cells = grid.flatten(0, 1)
        for number, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            if self.temporal_first:
                frames = temporal(frames)
            update_grid = number + 1 < len(self.spatial)
            tokens, cells = spatial(frames.flatten(0, 1), cells, update_grid=update_grid)
            frames = tokens.unflatten(0, (B, T))
            if not self.temporal_first:
                frames = temporal(frames)
        return frames


class GlobalFusion(nn.Module):
    """Global tokens: the mean local descriptor plus what M learned tokens read from the clip.

    Paper: a global fusion sub-module is recalled from the abstract's tail; the token is inferred
    from MoLo. Adding it to the mean, with a zero-initialised output, is our choice. Measured: a
    learned token alone starts out the same for every clip.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.num_global_tokens, config.dim) * 0.02)
        self.norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads, zero_output=True)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=True)

    def forward(self, local: Tensor, frames: Tensor) -> Tensor:
        """Summarise clips.

        Args:
            local: (B, T, D) float. Local descriptors.
            frames: (B, T, 1 + I, D) float. Image and instance tokens.

        Returns:
            (B, M, D) float.
        """
        memory = self.norm(frames.flatten(1, 2))
        read = self.dropout(self.attention(self.tokens.unsqueeze(0), memory))
        fused = local.mean(dim=1, keepdim=True) + read
        return fused + self.feed_forward(fused)


def sine_positions(length: int, dim: int) -> Tensor:
    """Fixed encodings of positions 0 .. length - 1 (Vaswani et al. 2017, Sec. 3.5): (length, dim).

    Sines first, then cosines; any length, so the number of frames is not part of the network.
    """
    rates = torch.exp(torch.arange(dim // 2) * (-math.log(10_000.0) / (dim // 2)))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(config: NetworkConfig) -> Tensor:
    """(L, D) encodings of row-major grid cells: half the features for the row, half the column."""
    side = config.grid
    if config.positions == "none":
        return torch.zeros(side * side, config.dim)
    line = sine_positions(side, config.dim // 2)
    rows = line.unsqueeze(1).expand(side, side, -1)
    columns = line.unsqueeze(0).expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _is_image(image: int, instances: int, cells: int, device: torch.device) -> Tensor:
    flags = [True] * image + [False] * instances + [True] * cells
    return torch.tensor(flags, device=device)
