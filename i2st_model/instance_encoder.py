"""Encoder of the instance perception: learned queries that read one frame.

Shape letters: B frames, n instance queries, L grid cells, D features.
"""

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig
from i2st_model.layers import Attention, FeedForward


class InstanceEncoder(nn.Module):
    """Learned queries that read the tokens of one frame.

    Pre-normalised layers of self-attention over the queries, cross-attention to the frame, and a
    feed-forward part. Paper: an encoder is stated; its form is inferred from DETR and MaskFormer,
    depth and number of queries are our choice.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.num_instances, config.dim) * 0.02)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.perception_layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, memory: Tensor) -> Tensor:
        """Map (B, L, D) tokens with positions to (B, n, D)."""
        # One batch row until the first look at the frame: before it the queries are all alike.
        queries = self.queries.unsqueeze(0)
        for layer in self.layers:
            queries = layer(queries, memory)
        return self.norm(queries)


class _Layer(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(config.dim)
        self.self_attention = Attention(config.dim, config.heads)
        self.cross_norm = nn.LayerNorm(config.dim)
        self.cross_attention = Attention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        normed = self.self_norm(queries)
        queries = queries + self.dropout(self.self_attention(normed, normed))
        read = self.cross_attention(self.cross_norm(queries), memory)
        queries = queries + self.dropout(read)
        return queries + self.feed_forward(queries)
