"""The fixed first step on cached features: centre, rotate to principal components, scale.

Shape letters: L grid cells of a cached frame, S stem outputs of a frame, C token channels,
E embedding channels, P stem channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig


class Stem(nn.Module):
    """Tokens to about unit-variance principal components, by buffers that no gradient touches.

    Paper: our choice; it stands in for the trained backbone's last layer. Measured: centring is
    worth 2.1 points at 1-shot before any learning; whitening hurts, so one scale serves all
    components and their variances keep their ratios. The frame embedding, where it is the image
    token, has a centre and components of its own and comes first, as a ViT's class token does.
    """

    mean: Tensor
    components: Tensor
    fitted: Tensor
    embedding_mean: Tensor
    embedding_components: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.token_dim))
        self.register_buffer("components", torch.eye(config.token_dim, config.stem_dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.reads_embedding = config.image_token == "embedding"
        if self.reads_embedding:
            identity = torch.eye(config.embedding_dim, config.stem_dim)
            self.register_buffer("embedding_mean", torch.zeros(config.embedding_dim))
            self.register_buffer("embedding_components", identity)

    def forward(self, tokens: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map cached features of frames to what the network encodes.

        Args:
            tokens: (..., L, C) float; any (..., C) where nothing else is configured.
            embedding: (..., E) float, of the same frames; needed under image_token=embedding.

        Returns:
            (..., S, P) float32. Pooled cells, after the embedding where it is used.

        Raises:
            ValueError: an embedding is needed and absent.
        """
        # x R - m R, not (x - m) R: the large tensor is read once and never copied.
        cells = tokens.to(self.mean.dtype) @ self.components - self.mean @ self.components
        if self.config.pool_grid:
            cells = pool_cells(cells, self.config.grid, self.config.pool_grid)
        if not self.reads_embedding:
            return cells
        if embedding is None:
            raise ValueError(
                "embedding is absent; image_token='embedding' needs the frame embeddings beside "
                "the tokens; pass them"
            )
        mean, components = self.embedding_mean, self.embedding_components
        image = embedding.to(mean.dtype) @ components - mean @ components
        return torch.cat([image.unsqueeze(-2), cells], dim=-2)

    @torch.no_grad()
    def fit(self, sample: Tensor, embeddings: Tensor | None = None) -> None:
        """Set the buffers from features of the training split.

        Args:
            sample: (..., C) float. Training tokens; some ten thousand suffice.
            embeddings: (..., E) float. Training frame embeddings, where they are used.

        Raises:
            ValueError: the features have another width than the config, or are fewer than two.
        """
        mean, components = self._components(sample, self.config.token_dim, "token")
        self.mean.copy_(mean)
        self.components.copy_(components)
        if self.reads_embedding:
            given = sample.new_empty(0, 1) if embeddings is None else embeddings
            mean, components = self._components(given, self.config.embedding_dim, "embedding")
            self.embedding_mean.copy_(mean)
            self.embedding_components.copy_(components)
        self.fitted.fill_(True)

    def _components(self, sample: Tensor, width: int, what: str) -> tuple[Tensor, Tensor]:
        """Centre (width,) and scaled components (width, P); components that are missing are 0."""
        rows = sample.reshape(-1, sample.shape[-1]).to("cpu", torch.float64)
        if rows.shape[1] != width or len(rows) < 2:
            raise ValueError(
                f"stem sample has shape {tuple(sample.shape)}; two or more {what}s of "
                f"{width} channels are needed"
            )
        mean = rows.mean(dim=0)
        centred = rows - mean
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        kept = variance.flip(0)[: self.config.stem_dim].clamp_min(0)
        basis = vectors.flip(1)[:, : self.config.stem_dim]
        basis = basis * _signs(basis)
        if self.config.scale:
            basis = basis * (self.config.scale / kept.mean().sqrt().clamp_min(1e-12))
        missing = self.config.stem_dim - basis.shape[1]
        return mean * self.config.centre, functional.pad(basis, (0, missing))


def require_stem_tokens(config: NetworkConfig, stem_tokens: Tensor) -> None:
    """Refuse what no stem of this config made.

    Args:
        config: gives S and P.
        stem_tokens: ought to be (B, T, S, P).

    Raises:
        ValueError: it is not.
    """
    wanted = (config.num_stem_tokens, config.stem_dim)
    if stem_tokens.ndim != 4 or stem_tokens.shape[-2:] != wanted:
        raise ValueError(
            f"stem tokens have shape {tuple(stem_tokens.shape)}; (B, T, {wanted[0]}, {wanted[1]}) "
            "is needed; build the network with the token_dim and grid of the shards"
        )


def pool_cells(cells: Tensor, grid: int, side: int) -> Tensor:
    """Average (..., g x g, P) row-major cells into (..., side x side, P); side divides g."""
    size = grid // side
    blocks = cells.unflatten(-2, (side, size, side, size))
    return blocks.mean(dim=(-4, -2)).flatten(-3, -2)


def _signs(basis: Tensor) -> Tensor:
    # An eigenvector's sign is arbitrary and differs between LAPACK builds; make its largest entry
    # positive.
    largest = basis.abs().argmax(dim=0, keepdim=True)
    return basis.gather(0, largest).sign()
