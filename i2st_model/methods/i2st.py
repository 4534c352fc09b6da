"""I2ST as a method: a trained network over cached tokens.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, M global tokens,
L grid cells, C token channels, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2st_model.methods import Features
from i2st_model.network import I2STNetwork


class I2st:
    """Wraps a network that was loaded or built; it is put into test mode.

    Qian et al., "Joint image-instance spatial-temporal attention for few-shot action recognition",
    CVIU 2025, arXiv:2503.14430; see `I2STNetwork` for what of it is stated.
    """

    name = "i2st"
    needs: Features = "tokens"

    def __init__(self, *, network: I2STNetwork) -> None:
        self.network = network.eval()

    def fit(self, train_mean: Tensor) -> None:
        """Do nothing: the network keeps its own statistics of the training tokens."""

    def describe(self, features: Tensor) -> dict[str, Tensor]:
        """Map (B, T, L, C) tokens to ``local`` (B, T, D) and ``global`` (B, M, D)."""
        return self.network.describe(features)

    @torch.no_grad()
    def logits(self, query: Mapping[str, Tensor], support: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors (E, Q, ...) against (E, N, K, ...): (E, Q, N) float."""
        return self.network.logits(query, support)
