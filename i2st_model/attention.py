"""Joint image-instance attention over space and time, and the global fusion token.

Shape letters: B clips or frames (whatever is independent), T frames, I instances, L grid cells,
M global tokens, D features.
"""

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig
from i2st_model.layers import Attention, FeedForward, SinePositions, grid_positions


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
        identity = config.attention_start == "identity"
        self.attention = Attention(config.dim, config.heads, zero_output=identity)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=identity)
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
        self.norm = nn.LayerNorm(config.dim)
        self.types = nn.Parameter(torch.randn(2, config.dim) * 0.02)
        self.positions = SinePositions(config.dim) if config.positions == "sine" else None
        identity = config.attention_start == "identity"
        self.attention = Attention(config.dim, config.heads, zero_output=identity)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=identity)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, T, 1 + I, D) to the same shape; the image token comes first in each frame."""
        T, num_frame = frames.shape[1:3]
        offset = torch.cat([self.types[:1], self.types[1:].expand(num_frame - 1, -1)])
        if self.positions is not None:
            offset = offset + self.positions(T).to(frames).unsqueeze(1)
        memory = (self.norm(frames) + offset).flatten(1, 2)
        allowed = None
        if self.cross:
            image = _is_image(1, num_frame - 1, 0, frames.device).repeat(T)
            allowed = image[:, None] != image
        tokens = frames.flatten(1, 2)
        tokens = tokens + self.dropout(self.attention(memory, memory, allowed))
        return (tokens + self.feed_forward(tokens)).unflatten(1, (T, num_frame))


class JointAttention(nn.Module):
    """Spatial-temporal pairs in the configured number, parts, order and scope."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_pairs, parts = config.spatial_temporal_pairs, config.attention_parts
        self.temporal_first = config.attention_order == "temporal_first"
        num_spatial = 0 if parts == "temporal" else self.num_pairs
        num_temporal = 0 if parts == "spatial" else self.num_pairs
        self.spatial = nn.ModuleList(SpatialAttention(config) for _ in range(num_spatial))
        self.temporal = nn.ModuleList(TemporalAttention(config) for _ in range(num_temporal))

    def forward(self, frames: Tensor, grid: Tensor) -> Tensor:
        """Refine image and instance tokens.

        Args:
            frames: (B, T, 1 + I, D) float. Per frame the image token, then the instances.
            grid: (B, T, L, D) float.

        Returns:
            (B, T, 1 + I, D) float.
        """
        cells = grid.flatten(0, 1)
        for number in range(self.num_pairs):
            if self.temporal_first:
                frames = self._over_time(number, frames)
            if self.spatial:
                tokens, cells = self.spatial[number](
                    frames.flatten(0, 1), cells, update_grid=number + 1 < self.num_pairs
                )
                frames = tokens.unflatten(0, frames.shape[:2])
            if not self.temporal_first:
                frames = self._over_time(number, frames)
        return frames

    def _over_time(self, number: int, frames: Tensor) -> Tensor:
        return self.temporal[number](frames) if self.temporal else frames


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
        identity = config.attention_start == "identity"
        self.attention = Attention(config.dim, config.heads, zero_output=identity)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config.dim, config.dropout, zero_output=identity)

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


class MeanFusion(nn.Module):
    """Global tokens without attention: the mean local descriptor, M times."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_tokens = config.num_global_tokens

    def forward(self, local: Tensor, frames: Tensor) -> Tensor:
        """Summarise (B, T, D) local descriptors, whatever ``frames`` are: (B, M, D)."""
        return local.mean(dim=1, keepdim=True).expand(-1, self.num_tokens, -1)


def _is_image(image: int, instances: int, cells: int, device: torch.device) -> Tensor:
    flags = [True] * image + [False] * instances + [True] * cells
    return torch.tensor(flags, device=device)
