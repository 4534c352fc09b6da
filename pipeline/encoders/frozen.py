"""FrozenEncoder: what all built-in encoders share around their own forward function.

Shape letters: B frames, S side of the view in pixels, h own grid side, g stored grid side,
L = g x g cells, C features of a token, E features of the pooled embedding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.encoders import FrameFeatures
from pipeline.errors import ConfigError

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(B, 3, S, S) normalised images -> map (B, C, h, h) and pooled embedding (B, E)."""


class FrozenEncoder:
    """A network that is never trained, from uint8 views to float16 features.

    On the GPU a batch runs at once under bfloat16 autocast. On the CPU frames run one at a time in
    float32: that is faster there (EfficientNet-Lite0, one thread: 21 ms a frame alone, 68 ms in a
    batch of 32, which leaves the cache) and independent of the batch by construction.

    Args:
        name: what the features are called in the shard index.
        forward: the network in eval mode, already on ``device``; one blank image is run through it
            to learn its sizes.
        image_size: side of the view in pixels.
        mean: of the three channels, for pixels in [0, 1].
        std: likewise.
        weights_sha256: of the weight file.
        device: where ``forward`` runs.
        package: library that defines the network, with its version.
        grid: cells per side to average the map to; None keeps the map.
        network: the module that ``forward`` runs, for those who train it; None where there is none.

    Raises:
        ConfigError: ``grid`` does not divide the side of the map.
    """

    def __init__(
        self,
        *,
        name: str,
        forward: Forward,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        weights_sha256: str,
        device: torch.device,
        package: str,
        grid: int | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.name = name
        self.network = network
        self.image_size = image_size
        self._forward = forward
        self._weights_sha256 = weights_sha256
        self._package = package
        self._mean = torch.tensor(list(mean)).view(1, 3, 1, 1)
        self._std = torch.tensor(list(std)).view(1, 3, 1, 1)
        self.to(device)
        blank = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
        with torch.inference_mode():
            cells, embedding = self._run(blank)
        self._own_grid = cells.shape[-1]
        self.grid = self._own_grid if grid is None else grid
        self._check_grid()
        self.token_dim = cells.shape[1]
        self.embedding_dim = embedding.shape[1]

    def to(self, device: torch.device) -> None:
        """Run on this device from now on."""
        self.device = device
        self.frame_by_frame = device.type == "cpu"
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        if self.network is not None:
            self.network.to(device)

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the features."""
        return {
            "name": self.name,
            "weights_sha256": self._weights_sha256,
            "package": self._package,
            "image_size": self.image_size,
            "grid": self.grid,
            "token_dim": self.token_dim,
            "embedding_dim": self.embedding_dim,
            "mean": [round(value, 6) for value in self._mean.flatten().tolist()],
            "std": [round(value, 6) for value in self._std.flatten().tolist()],
            "precision": "bfloat16 autocast" if self.device.type == "cuda" else "float32",
        }

    def encode(self, views: Tensor) -> FrameFeatures:
        """Encode a batch of views.

        Args:
            views: (B, S, S, 3) uint8. RGB; the caller keeps B fixed unless ``frame_by_frame``.

        Returns:
            Features of the B views.

        Raises:
            ValueError: the views have another size or type.
        """
        size = (self.image_size, self.image_size, 3)
        if tuple(views.shape[1:]) != size or views.dtype != torch.uint8:
            raise ValueError(
                f"views are {tuple(views.shape)} {views.dtype}; needed: "
                f"(B, {size[0]}, {size[1]}, 3) torch.uint8; use pipeline.views.square_view"
            )
        parts = [
            self._encode_batch(part)
            for part in views.split(1 if self.frame_by_frame else len(views))
        ]
        return FrameFeatures(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.embedding for part in parts]),
        )

    def features(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Run a batch of views at once, with gradients wherever the caller has them enabled.

        Args:
            views: (B, S, S, 3) uint8. RGB.

        Returns:
            Tokens (B, L, C) and embedding (B, E), float32 on the encoder's device.
        """
        cells, embedding = self._run(views)
        if self.grid != self._own_grid:
            cells = functional.avg_pool2d(cells, self._own_grid // self.grid)
        return cells.flatten(2).transpose(1, 2), embedding

    @torch.inference_mode()
    def _encode_batch(self, views: Tensor) -> FrameFeatures:
        tokens, embedding = self.features(views)
        return FrameFeatures(tokens.half().cpu().contiguous(), embedding.half().cpu())

    def _run(self, views: Tensor) -> tuple[Tensor, Tensor]:
        images = views.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div(255)
        images = images.sub(self._mean).div(self._std)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            cells, embedding = self._forward(images)
        # float32 before averaging to the grid: bfloat16 holds 8 bits of a value.
        return cells.float(), embedding.float()

    def _check_grid(self) -> None:
        if self.grid < 1 or self._own_grid % self.grid:
            sides = [side for side in range(1, self._own_grid + 1) if self._own_grid % side == 0]
            raise ConfigError(
                f"grid {self.grid} does not divide the {self._own_grid} x {self._own_grid} map of "
                f"{self.name}; needed: one of {', '.join(map(str, sides))}; pass one with --grid"
            )
