"""Frozen image encoders: frames -> tokens on a grid and the encoder's own pooled embedding.

Torch is imported with the first encoder: a mistyped name is refused without it.

Shape letters: B frames, S side of the view in pixels, L = g x g grid cells, C features of a
token, E features of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline.registry import find_builder, known_names, require_known

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENTRY_POINTS = "i2st.encoders"


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
    frame_by_frame: bool
    """Frames go through the network one at a time, so a batch needs no padding."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the features: name, sha256 of the weights, sizes, grid."""
        ...

    def encode(self, views: Tensor) -> FrameFeatures:
        """Encode (B, S, S, 3) uint8 RGB views, S = image_size; B is the caller's fixed batch."""
        ...


def _open_clip(model: str, **options: Any) -> FrameEncoder:
    from pipeline.encoders.open_clip_vit import build_open_clip

    return build_open_clip(model, **options)


def _timm(model: str, **options: Any) -> FrameEncoder:
    from pipeline.encoders.timm_model import build_timm

    return build_timm(model, **options)


def _efficientnet_lite(number: int, model: str, **options: Any) -> FrameEncoder:
    from pipeline.encoders.efficientnet_lite import build_efficientnet_lite

    return build_efficientnet_lite(number, model, **options)


ENCODERS: dict[str, Callable[..., FrameEncoder]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "efficientnet-lite0": partial(_efficientnet_lite, 0),
    "efficientnet-lite2": partial(_efficientnet_lite, 2),
}


def known_encoders() -> list[str]:
    """Names that may stand before the colon of an encoder's spec."""
    return known_names(ENCODERS, ENTRY_POINTS)


def require_encoder(spec: str) -> None:
    """Refuse a spec that names no encoder.

    Args:
        spec: as for `get_encoder`.

    Raises:
        BackendError: the name before the colon is unknown.
    """
    name = spec.partition(":")[0]
    require_known(name, builtin=ENCODERS, group=ENTRY_POINTS, kind="encoder")


def get_encoder(
    spec: str,
    *,
    device: str | torch.device = "cpu",
    grid: int | None = None,
    weights: Path | None = None,
) -> FrameEncoder:
    """Build the encoder that a spec names.

    Args:
        spec: ``open_clip:MODEL/TAG`` (TAG may be a weight file), ``timm:NAME``,
            ``efficientnet-lite0`` or ``efficientnet-lite2`` (each with ``:SIDE`` for views of
            another size), or a name that an installed package adds.
        device: where the network runs. Features always end on the CPU.
        grid: cells per side of the token grid; None keeps the encoder's own. It must divide that.
        weights: local weight file, ``.safetensors`` or a state dict saved by torch.

    Returns:
        The encoder, its weights loaded and frozen.

    Raises:
        BackendError: the name is unknown, or its package or weights are absent or do not fit.
        ConfigError: the grid does not divide the encoder's own.
    """
    import torch

    name, _, model = spec.partition(":")
    build = find_builder(name, builtin=ENCODERS, group=ENTRY_POINTS, kind="encoder")
    encoder: FrameEncoder = build(model, device=torch.device(device), grid=grid, weights=weights)
    return encoder
