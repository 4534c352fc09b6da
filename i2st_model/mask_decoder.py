"""Mask decoders: from the token grid to a mask of four times its side.

Shape letters: B frames, n instance queries, L = g x g grid cells, D features, W mask width,
S = 4 g side of the mask.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig

PIXEL_BYTES = 4 << 20
"""Pixel map made at a time on a CPU without gradients: a whole one leaves the cache between each of
its steps. With gradients all is kept anyway, and parts would change how they are summed."""


class MaskDecoder(nn.Module):
    """A mask per instance: products of its mask vector with an upsampled pixel map.

    Two 2 x 2 transposed convolutions of stride 2 take g to 4 g (Paper: inferred from MaskFormer;
    this form for token grids is our choice). Non-overlapping, they are linear maps per cell; the
    second has no activation behind it, so it is merged into the mask vectors: four vectors per
    instance, one per sub-cell, replace a pixel map of side 4 g. Of its 4 W (W + n)
    multiplications per pixel of side 2 g this leaves 4 W n.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.side, self.width = config.side, config.mask_width
        self.instances = config.num_instances
        self.upsample = nn.Linear(config.dim, 4 * config.mask_width)
        self.norm = nn.LayerNorm(config.mask_width)
        self.vectors = nn.Sequential(
            nn.Linear(config.dim, 2 * config.dim),
            nn.GELU(),
            nn.Linear(2 * config.dim, 4 * config.mask_width),
        )
        # Starts with about a quarter of the frame as foreground, however many instances there are.
        self.bias = nn.Parameter(torch.tensor(-1.0 - math.log(config.num_instances)))

    def forward(self, instances: Tensor, tokens: Tensor) -> Tensor:
        """Decode masks.

        Args:
            instances: (B, n, D) float.
            tokens: (B, L, D) float, with positions.

        Returns:
            (B, n, 4 g, 4 g) float. Mask logits, row-major.
        """
        return torch.cat([self._arranged(part) for part in self._parts(instances, tokens)])

    def union(self, instances: Tensor, tokens: Tensor) -> Tensor:
        """Decode masks and join them by logsumexp over instances: (B, 4 g, 4 g) float."""
        parts = self._parts(instances, tokens)
        joined = [self._arranged(part.logsumexp(dim=2, keepdim=True)) for part in parts]
        return torch.cat(joined).squeeze(1)

    def _parts(self, instances: Tensor, tokens: Tensor) -> Iterator[Tensor]:
        """Logits of some frames at a time, (b, 4 L, n, 4): cell and sub-cell, n, sub-sub-cell."""
        B, L, _ = tokens.shape
        vectors = self.vectors(instances).view(B, -1, self.width) * self.width**-0.5
        size = max(1, B)
        if tokens.device.type == "cpu" and not torch.is_grad_enabled():
            size = max(1, PIXEL_BYTES // (4 * L * self.width * tokens.element_size()))
        for some, lifted in zip(tokens.split(size), vectors.split(size), strict=True):
            pixels = self.upsample(some).view(len(some), 4 * L, self.width)
            pixels = functional.relu_(self.norm(pixels))
            # Pixels come first, so that their gradient, the largest tensor, is made contiguous.
            logits = torch.bmm(pixels, lifted.transpose(1, 2)) + self.bias
            yield logits.view(len(some), 4 * L, -1, 4)

    def _arranged(self, logits: Tensor) -> Tensor:
        g = self.side
        # cell (y, x), sub-cell (p, q) of the first step | n, sub-cell (a, b) of the second.
        fine = logits.view(len(logits), g, g, 2, 2, -1, 2, 2).permute(0, 5, 1, 3, 6, 2, 4, 7)
        return fine.reshape(len(logits), -1, 4 * g, 4 * g)


class AutoDecoder(nn.Module):
    """Convolutions and bilinear upsampling from a hidden map to one mask.

    Paper: inferred from MoLo, which goes on to the image's resolution with batch normalisation; the
    side 4 g and group normalisation, which no batch mate can touch, are our choice.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        wide, narrow = config.mask_width, max(config.mask_width // 4, 4)
        self.first = nn.Conv2d(wide, narrow, 3, padding=1)
        self.second = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.first_norm, self.second_norm = nn.GroupNorm(1, narrow), nn.GroupNorm(1, narrow)
        self.last = nn.Conv2d(narrow, 1, 1)
        nn.init.constant_(self.last.bias, -1.0)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        """Decode a (B, W, g, g) map into (B, 4 g, 4 g) mask logits."""
        hidden = functional.relu(self.first_norm(self.first(_twice(hidden))))
        hidden = functional.relu(self.second_norm(self.second(_twice(hidden))))
        return self.last(hidden).squeeze(1)


def _twice(image: Tensor) -> Tensor:
    return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
