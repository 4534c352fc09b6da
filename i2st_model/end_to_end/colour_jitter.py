"""Clips in other light: brightness, contrast and saturation change, alike in all frames of a clip.

Shape letters: B clips, T frames, S side of the view in pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import WORD, Words

GREY = (0.299, 0.587, 0.114)
"""Weights of ITU-R BT.601, as Pillow's and torchvision's."""


def draw_factors(words: Words, count: int, strength: float) -> NDArray[np.float32]:
    """Draw (B, 3) factors of brightness, contrast and saturation, uniform in 1 +- strength."""
    shares = np.array([[words.word() / WORD for _ in range(3)] for _ in range(count)])
    return (1 + strength * (2 * shares.reshape(count, 3) - 1)).astype(np.float32)


def jitter(views: Tensor, factors: NDArray[np.float32]) -> Tensor:
    """Change the colours of clips.

    In this order: pixels times brightness; distances to the clip's mean grey times contrast;
    distances to the pixel's own grey times saturation. torchvision's ColorJitter does the same to
    single images, in random order, with the image's mean.

    Args:
        views: (B, T, S, S, 3) uint8 RGB.
        factors: (B, 3) of `draw_factors`.

    Returns:
        (B, T, S, S, 3) uint8, rounded once at the end.
    """
    brightness, contrast, saturation = (
        torch.from_numpy(factors[:, kind]).to(views.device).view(-1, 1, 1, 1, 1)
        for kind in range(3)
    )
    grey = torch.tensor(GREY, device=views.device)
    pixels = (views.float() * brightness).clamp(0, 255)
    mean = (pixels @ grey).mean(dim=(1, 2, 3), keepdim=True).unsqueeze(-1)
    pixels = (mean + contrast * (pixels - mean)).clamp(0, 255)
    own = (pixels @ grey).unsqueeze(-1)
    return (own + saturation * (pixels - own)).clamp(0, 255).round().to(torch.uint8)
