"""Frozen image encoders: frames -> tokens on a grid and the encoder's own pooled embedding."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor


class FrameFeatures(NamedTuple):
    """Features of B frames."""

    tokens: Tensor
    """(B, L, C) float16 on the CPU; row-major cells of an L = g x g grid."""
    embedding: Tensor
    """(B, E) float16 on the CPU; the encoder's own pooled embedding."""


class FrameEncoder(Protocol):
    """A frozen image encoder."""

    name: str
    image_size: int
    """Side in pixels of the square view the encoder takes."""
    grid: int
    token_dim: int
    embedding_dim: int

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the features: name, sha256 of the weights, sizes, grid."""
        ...

    def encode(self, views: Tensor) -> FrameFeatures:
        """Encode (B, S, S, 3) uint8 RGB views, S = image_size; B is the caller's fixed batch shape."""
        ...
