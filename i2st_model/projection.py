"""The learned linear ends of the network: tokens in, frame descriptors out.

Shape letters: B clips, T frames, I instances, L grid cells, S stem outputs of a frame, M global
tokens, P stem channels, D features.
"""

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig


class Projection(nn.Linear):
    """Stem channels P -> features D, starting as the leading principal components.

    Paper: our choice. Measured: a random orthogonal start loses 2 points and never recovers. No
    group normalisation follows, which was specified: with components in order of variance it would
    even out their variances, as whitening does, and whitening measured worse.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.stem_dim, config.dim)
        with torch.no_grad():
            nn.init.zeros_(self.bias)
            nn.init.eye_(self.weight)
            # Rows beyond the components would get no gradient from a cosine if they were zero.
            self.weight[config.stem_dim :].normal_(std=0.02)


def image_and_grid(
    tokens: Tensor, projection: Projection, image_projection: Projection | None
) -> tuple[Tensor, Tensor]:
    """Project the tokens of each frame.

    Args:
        tokens: (B, T, S, P) float. The stem's; the embedding first where it is the image token.
        projection: of grid cells.
        image_projection: of the embedding; None where the mean of the grid is the image token.

    Returns:
        Image token (B, T, 1, D) and grid (B, T, L, D) float.
    """
    if image_projection is None:
        grid = projection(tokens)
        return grid.mean(dim=2, keepdim=True), grid
    return image_projection(tokens[:, :, :1]), projection(tokens[:, :, 1:])


class DescriptorHead(nn.Module):
    """Local descriptor ``LN(W [image; mean instance])`` with ``W`` starting as ``[I, a I]``.

    Paper: our choice; with ``a`` = ``instance_init`` = 0, or without instances, step 0 is
    Bi-MHM on the projected tokens. Measured: a = 0.5 with mask-pooled instances.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        self.mix = nn.Linear(2 * dim, dim) if config.num_instance_tokens else None
        self.norm = nn.LayerNorm(dim) if config.descriptor_norm == "layer" else nn.Identity()
        if self.mix is not None:
            with torch.no_grad():
                identity = torch.eye(dim)
                self.mix.weight.copy_(torch.cat([identity, config.instance_init * identity], 1))
                nn.init.zeros_(self.mix.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, T, 1 + I, D) image and instance tokens to (B, T, D)."""
        image = frames[:, :, 0]
        if self.mix is None:
            return self.norm(image)
        return self.norm(self.mix(torch.cat([image, frames[:, :, 1:].mean(dim=2)], dim=-1)))


class BaseHead(nn.Linear):
    """Logits over all training classes, of clips or of each frame.

    A descriptor plus the mean global token is classified. Paper: inferred from MoLo (clips), HyRSM
    (frames).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.dim, config.base_classes)
        self.of_frames = config.base_level == "frame"

    def classify(self, local: Tensor, global_: Tensor) -> Tensor:
        """Classify clips, or their frames.

        Args:
            local: (B, T, D) float. Local descriptors.
            global_: (B, M, D) float. Global descriptors.

        Returns:
            (B, 1, base classes) float, or (B, T, base classes) of frames.
        """
        clip = global_.mean(dim=1, keepdim=True)
        if self.of_frames:
            return self(local + clip)
        return self(local.mean(dim=1, keepdim=True) + clip)
